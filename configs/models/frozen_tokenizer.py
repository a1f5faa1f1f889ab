"""A trained tokenizer that stays as it is, for tasks that learn on top of it. Loaded by the families that do.

Which one is said in one of three ways:

- ``tokenizer_run``: what ``vq.load`` takes: the NAME or folder of a run, one of its checkpoints, a converted file, or a
  published tokenizer of the catalog. Its config and its weights are found there.
- ``it_config`` and ``it_state_dict``: the config that trained it, and a run, checkpoint or converted file with the weights.
  Without ``it_state_dict`` a command takes the weights from --load-model-from. Options reach that config too, all but
  ``image_size``, which is of the images to come.
- ``ir_config`` and ``ir_state_dict``: the same for a tokenizer with a new decoder, of ../decoder; ``it_config`` and
  ``it_state_dict`` then say which tokenizer is inside, where ``ir_config`` does not (the config in a run folder does).

Other options: ``gives`` (codes, or features: before they are quantized), ``image_size`` (256).

What comes out: ``part`` (the FrozenTokenizer) and ``tiny`` (what changes in it when tiny), ``metrics`` and ``tiny_metrics``
(of its codebook, as its own validator has them), ``custom_imports``.
"""

from vq.core import PyConfig
from vq.core.errors import ConfigError, UserError

CODEBOOK = ('CodebookMetric', 'WindowedCodebookMetric')


def at(config, *names):
    for name in names:
        config = config.get(name) or {}
    return config


def from_config(config, file, weights, imports):
    model = at(config, 'trainer', 'model') or at(config, 'validator', 'model')
    if 'tokenizer' not in model:
        raise ConfigError(
            f'{file} describes {model.get("type") or "no model"}, which has no tokenizer', 'Give that of a tokenizer.'
        )
    found = at(config, 'validator', 'metrics')
    metrics = {name: metric for name, metric in found.items() if metric and metric['type'].split('.')[-1] in CODEBOOK}
    tiny = at(config, 'tiny', 'validator', 'metrics')
    return dict(
        tokenizer=model['tokenizer'],
        weights=weights,
        tiny=at(config, 'tiny', 'trainer', 'model', 'tokenizer'),
        metrics=metrics,
        tiny_metrics={name: tiny[name] for name in metrics if name in tiny},
        custom_imports=imports,
    )


def from_file(file, weights):
    config = PyConfig.load(file)
    return from_config(config, file, weights, config.get('custom_imports', []))


def from_run(name):
    from vq.cli.fitting import fit
    from vq.io import runs

    try:
        run = runs.find(name)
        found = from_config(run.config, run.weights, str(run.weights), list(run.custom_imports))
        if run.checkpoint is None:  # what a file says of itself is not to be trusted
            codes = fit(run.about.tokenizer, run.about.shapes, str(run.weights)).codebook_size
            found['metrics'] = dict(codebook=dict(type='CodebookMetric', codebook_size=codes)) if codes else {}
        return found
    except ConfigError:
        raise
    except UserError as error:  # any other kind would be a mistake of this file
        raise ConfigError(f'tokenizer_run: {error.message}', error.hint) from error


def from_decoder(file, weights, inside):
    found = from_file(file, weights)
    part = found['tokenizer'].get('frozen')
    if part is not None and inside is not None:
        part['weights'] = inside
    return found


size, gives, run = _kwargs_.get('image_size', 256), _kwargs_.get('gives', 'codes'), _kwargs_.get('tokenizer_run')
file, state = _kwargs_.get('it_config', 'configs/vqgan/8192_imagenet_ddp.py'), _kwargs_.get('it_state_dict')
with_decoder, decoder_state = _kwargs_.get('ir_config'), _kwargs_.get('ir_state_dict')
# what is said of the images to come and of the tokenizer itself is not for its config, which may build upon one too; it may
# have learned from images of another size, which networks with positions are built for
OURS = ('image_size', 'tokenizer_run', 'it_state_dict', 'ir_config', 'ir_state_dict', 'gives')
_kwargs_ = {name: value for name, value in _kwargs_.items() if name not in OURS}
if with_decoder is None:
    _kwargs_.pop('it_config', None)
# that config may come through this file again, which is no circle: it stands between, and would be found out itself
__file__ = f'{__file__} (asking)'
if run is not None:
    found = from_run(str(run))
elif with_decoder is not None:
    found = from_decoder(with_decoder, decoder_state, state)
else:
    found = from_file(file, state)

_export_ = dict(
    part=dict(type='FrozenTokenizer', tokenizer=found['tokenizer'], weights=found['weights'], gives=gives, image_size=size),
    tiny=dict(tokenizer=found['tiny'], image_size=32),
    metrics=found['metrics'],
    tiny_metrics=found['tiny_metrics'],
    custom_imports=found['custom_imports'],
)
