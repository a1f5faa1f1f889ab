"""A pixel decoder for the tokens of a frozen tokenizer: whatever trains a tokenizer trains a decoder alone.

    image x -> frozen encoder -> frozen codes -> z -> pre_decode -> decoder -> x'
    decoder:        the pixel losses and the adversarial term of ``ir_config``
    discriminator:  as there

Options, of the frozen side: ``tokenizer_run``, or ``it_config`` and ``it_state_dict``; see ../models/frozen_tokenizer.py.

Of the side that learns:

- ``ir_config`` (../vqgan/8192_dd2_aglwg075_imagenet_ddp.py): a config of the image tokenization task. Its decoder, connector,
  losses, discriminator, optimizers, data, callbacks and metrics are taken, and its options are options here: ``image_size``,
  ``data_root``, ``batch_size``, ``iters``, ``strategy``, and so on.
- ``decoder``: vqgan (that of ``ir_config``); vqkd (a ViTDecoder of 12 layers, 768 wide); vqkd_large (32 layers, 1280 wide); or
  a dict(type=...). ``patch`` (16) is that of a ViTDecoder.
- ``width``, ``multipliers``, ``refine``: of the new decoder; ``it_config`` does not see them.

Images are as large as ``ir_config`` says. What a token stands for must agree: 16 x 16 pixels with ``multipliers`` (1, 1, 2, 2,
4) and with ``patch`` 16, 8 x 8 with (1, 1, 2, 4) and with 8.
"""

from collections.abc import Mapping

from vq.core import PyConfig
from vq.core.errors import ConfigError

TASKS = dict(ImageTokenization='ImageReconstruction', AdversarialTokenization='AdversarialReconstruction')
OF_CODEBOOKS = ('CodebookMetric', 'WindowedCodebookMetric', 'CodebookAlarmCallback', 'KMeansInitCallback', 'ReinitCallback')
OF_FROZEN = ('tokenizer.encoder', 'tokenizer.post_encode', 'tokenizer.quantizer')  # what an AnnealCallback may be set on
# options that the other side does not see
OF_TOKENIZER = ('tokenizer_run', 'it_config', 'it_state_dict', 'ir_config')
OF_DECODER = ('ir_config', 'width', 'multipliers', 'refine')
SIZES = dict(vqkd=dict(dim=768, depth=12, heads=12), vqkd_large=dict(dim=1280, depth=32, heads=16))

choice, patch = _kwargs_.get('decoder', 'vqgan'), _kwargs_.get('patch', 16)
source = _kwargs_.get('ir_config', '../vqgan/8192_dd2_aglwg075_imagenet_ddp.py')
everything = _kwargs_
_kwargs_ = {name: value for name, value in everything.items() if name not in OF_TOKENIZER}
ir = PyConfig.load(source)
model, tiny = ir.get('trainer', {}).get('model', {}), ir.get('tiny', {}).get('trainer', {}).get('model', {})
task = model.get('type', '').split('.')[-1]
if task not in TASKS or 'decoder' not in model.get('tokenizer', {}):
    raise ConfigError(
        f'ir_config: {source} trains a {task or "model that is not there"}, which has no decoder of pixels to take',
        'Give a config of the image tokenization task whose tokenizer has a decoder, e.g. configs/vqgan/8192_imagenet_ddp.py.',
    )

dataset = ir.validator.dataset
size = (dataset.get('transform') or {}).get('image_size', dataset.get('image_size', 256))
_kwargs_ = {name: value for name, value in everything.items() if name not in OF_DECODER}
_kwargs_['image_size'] = size
frozen = PyConfig.load('../models/frozen_tokenizer.py')


def taken(tokenizer, default):
    """Of a tokenizer, or of what changes in it when tiny: the decoder, as wide at its entrance as it is there."""
    inside = tokenizer.get('encoder', {}).get('out_channels', default)
    return dict(tokenizer['decoder'], **({} if inside is None else dict(in_channels=inside)))


def others(parts):
    """Without what looks at a codebook in training, or changes it."""
    return [
        part
        for part in parts
        if part['type'].split('.')[-1] not in OF_CODEBOOKS and not str(part.get('setting', '')).startswith(OF_FROZEN)
    ]


own, small = model.pop('tokenizer'), tiny.pop('tokenizer', {})
pre_decode = None
if choice == 'vqgan':
    pre_decode = own.get('pre_decode')
    decoder = taken(own, None if pre_decode is None else 256)  # without a connector: as wide as the codes
    small = taken(small, None) if 'decoder' in small else {}
elif isinstance(choice, Mapping):
    decoder, small = choice, {}
elif choice in SIZES:
    decoder = dict(type='ViTDecoder', patch=patch, grid=size // patch, **SIZES[choice])
    small = dict(dim=16, depth=1, heads=2, grid=2)
else:
    raise ConfigError(f"decoder is '{choice}'", f'Choose vqgan, {", ".join(SIZES)}, or give dict(type=...).')

model['type'] = TASKS[task]
model['tokenizer'] = dict(
    type='TokenizerWithDecoder',
    frozen=frozen.part,
    decoder=decoder,
    **({} if pre_decode is None else dict(pre_decode=pre_decode)),
)
ir.trainer['callbacks'] = others(ir.trainer.get('callbacks', []))
metrics = ir.validator.get('metrics', {})
ir.validator['metrics'] = {
    **{name: metric for name, metric in metrics.items() if metric and metric['type'].split('.')[-1] not in OF_CODEBOOKS},
    **frozen.metrics,
}
if 'tiny' in ir:
    ir['tiny'].update(trainer=dict(model=dict(tokenizer=dict(frozen=frozen.tiny, decoder=small))))
    if 'callbacks' in ir.tiny.trainer:
        ir.tiny.trainer['callbacks'] = others(ir.tiny.trainer['callbacks'])
    changes = ir.tiny.get('validator', {}).get('metrics', {})
    for name in [name for name in changes if name not in ir.validator['metrics'] or name in frozen.metrics]:
        changes.pop(name)
    if frozen.tiny_metrics:
        ir['tiny'].update(validator=dict(metrics=frozen.tiny_metrics))
if frozen.custom_imports:
    ir['custom_imports'] = list(dict.fromkeys([*ir.get('custom_imports', []), *frozen.custom_imports]))

_export_ = ir
