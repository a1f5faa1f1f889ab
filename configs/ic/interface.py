"""The linear probe: how well a linear classifier can read classes off a frozen tokenizer.

    image -> tokenizer -> tokens -> code vectors -> mean over cells -> batch norm -> linear layer -> cross entropy

Which tokenizer is asked is said in one of two ways:

- ``tokenizer_run``: what ``vq.load`` takes: the NAME or folder of a run, one of its checkpoints, a converted file, or a
  published tokenizer of the catalog. Its config and its weights are found there.
- ``it_config`` and ``it_state_dict``: the config that trained it, and a run, checkpoint or converted file with the weights.

Other options: ``gives`` (codes, or features: before they are quantized), ``grid`` (1: the mean is over all cells),
``num_classes`` (1000), ``iters`` (30,000), ``optimizer`` (LARS with a rate of ``lr``, 1.6), ``ema`` (None: no moving average),
``dataset`` (imagenet), ``data_root``, ``image_size`` (256), ``augmentation`` (strong), ``batch_size`` (512) and
``val_batch_size`` (64) of one rank, ``num_workers`` (10), ``strategy`` (ddp; not fsdp: LARS looks at whole tensors),
``save_every`` (1000). With ``backbone``, and ``tiny_backbone`` (what changes in it when tiny), an encoder is trained instead.
"""

from pathlib import Path

from vq.core import PyConfig
from vq.core.errors import ConfigError, UserError

_kwargs_.setdefault('dataset', 'imagenet')
_kwargs_.setdefault('image_size', 256)
_kwargs_.setdefault('augmentation', 'strong')
_kwargs_.setdefault('batch_size', 512)
_kwargs_.setdefault('val_batch_size', 64)
_kwargs_.setdefault('num_workers', 10)
_kwargs_.setdefault('strategy', 'ddp')


def from_config(file):
    """The tokenizer's config, and what changes in it when tiny."""
    config = PyConfig.load(file)
    model = config.get('trainer', config.get('validator', {})).get('model', {})
    if 'tokenizer' not in model:
        raise ConfigError(f'{file} describes a {model.get("type")}, which has no tokenizer', 'Give that of a tokenizer.')
    tiny = config.get('tiny', {}).get('trainer', {}).get('model', {}).get('tokenizer', {})
    return model['tokenizer'], tiny


def from_run(name):
    """(config, changes when tiny, where the weights are)."""
    from vq.cli.fitting import fit
    from vq.io.published import catalog
    from vq.io.published.converted import read_about
    from vq.loading import converted_file, find_run, look_for_run, newest

    file = Path(name).expanduser()
    try:
        if not file.is_file():
            entry = catalog.find(name) if look_for_run(name, Path('work_dirs')) is None else None
            if entry is None:
                checkpoint = newest(find_run(name, Path('work_dirs')))
                return *from_config((checkpoint / 'config.py').resolve()), str(checkpoint)
            file = converted_file(entry)
        about = read_about(file)
        fit(about.tokenizer, about.shapes, str(file))  # what a file says of itself is not to be trusted
        return about.tokenizer, {}, str(file)
    except UserError as error:  # any other kind would be a mistake of this file
        raise ConfigError(f'tokenizer_run: {error.message}', error.hint) from error


def probed():
    """The backbone of a probe, and what changes in it when tiny."""
    run, state = _kwargs_.get('tokenizer_run'), _kwargs_.get('it_state_dict')
    config = _kwargs_.get('it_config', 'configs/vqgan/8192_imagenet_ddp.py')
    tokenizer, tiny, weights = (*from_config(config), state) if run is None else from_run(str(run))
    size, gives = _kwargs_['image_size'], _kwargs_.get('gives', 'codes')
    backbone = dict(type='FrozenTokenizer', tokenizer=tokenizer, weights=weights, gives=gives, image_size=size)
    return backbone, dict(tokenizer=tiny, image_size=32)


def callbacks(ema, log, checkpoint):
    return [
        dict(type='OptimizeCallback', schedule=dict(type='CosineSchedule')),
        *([] if ema is None else [dict(type='EMACallback', decay=ema)]),
        dict(type='LogCallback', interval=log),
        dict(type='ProgressCallback'),
        dict(type='GitCallback'),
        dict(type='PreemptionCallback'),
        dict(type='CheckpointCallback', **checkpoint),
    ]


backbone, tiny_backbone = probed() if 'backbone' not in _kwargs_ else (_kwargs_['backbone'], _kwargs_.get('tiny_backbone', {}))
ema = _kwargs_.get('ema')

_base_ = ['../datasets/interface.py', '../strategies/interface.py']

_export_ = dict(
    trainer=dict(
        type='Trainer',
        iters=_kwargs_.get('iters', 30_000),
        model=dict(
            type='ImageClassification',
            classes=_kwargs_.get('num_classes', 1000),
            grid=_kwargs_.get('grid', 1),
            backbone=backbone,
        ),
        optimizers=dict(
            classifier=_kwargs_.get('optimizer')
            or dict(type='LARS', lr=_kwargs_.get('lr', 1.6), momentum=0.9, weight_decay=0.0, trust=0.001)
        ),
        callbacks=callbacks(ema, 50, dict(interval=_kwargs_.get('save_every', 1000), keep_last=3)),
    ),
    validator=dict(type='Validator', metrics=dict(accuracy=dict(type='AccuracyMetric', top=[1, 5]))),
    tiny=dict(
        trainer=dict(
            iters=8,
            dataset=dict(_delete_=True, type='DigitsDataset', split='train', image_size=32),
            dataloader=dict(batch_size=8, num_workers=0, batch_size_in_total=False),
            strategy=dict(_delete_=True, type='BaseStrategy'),
            model=dict(backbone=tiny_backbone),
            callbacks=callbacks(None if ema is None else 0.9, 2, dict(interval=4)),
        ),
        validator=dict(
            dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32),
            dataloader=dict(batch_size=60, num_workers=0, batch_size_in_total=False),
        ),
    ),
)
