"""The linear probe: how well a linear classifier can read classes off a frozen tokenizer.

    image -> tokenizer -> tokens -> code vectors -> mean over cells -> batch norm -> linear layer -> cross entropy

Which tokenizer is asked: ``tokenizer_run``, or ``it_config`` and ``it_state_dict``; see ../models/frozen_tokenizer.py.

Other options: ``gives`` (codes, or features: before they are quantized), ``grid`` (1: the mean is over all cells),
``num_classes`` (1000), ``iters`` (30,000), ``optimizer`` (LARS with a rate of ``lr``, 1.6), ``ema`` (None: no moving average),
``dataset`` (imagenet), ``data_root``, ``image_size`` (256), ``augmentation`` (strong), ``batch_size`` (512) and
``val_batch_size`` (64) of one rank, ``num_workers`` (10), ``strategy`` (ddp; not fsdp: LARS looks at whole tensors),
``save_every`` (1000). With ``backbone``, and ``tiny_backbone`` (what changes in it when tiny), an encoder is trained instead.
"""

from vq.core import PyConfig

_kwargs_.setdefault('dataset', 'imagenet')
_kwargs_.setdefault('image_size', 256)
_kwargs_.setdefault('augmentation', 'strong')
_kwargs_.setdefault('batch_size', 512)
_kwargs_.setdefault('val_batch_size', 64)
_kwargs_.setdefault('num_workers', 10)
_kwargs_.setdefault('strategy', 'ddp')


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


if 'backbone' in _kwargs_:
    backbone, tiny_backbone, imports = _kwargs_['backbone'], _kwargs_.get('tiny_backbone', {}), []
else:
    probed = PyConfig.load('../models/frozen_tokenizer.py')
    backbone, tiny_backbone, imports = probed.part, probed.tiny, probed.custom_imports
ema = _kwargs_.get('ema')

_base_ = ['../datasets/interface.py', '../strategies/interface.py']

_export_ = dict(
    **(dict(custom_imports=imports) if imports else {}),
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
