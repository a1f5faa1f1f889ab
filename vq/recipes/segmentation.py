"""Segmentation: a class for each pixel."""

from __future__ import annotations

from typing import Annotated, Any

from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.data import data, tiny_data
from vq.recipes.parts import other_logs, watching
from vq.recipes.strategy import strategy

SPLITS = dict(trainer='train', validator='validation')
LITTLE: Part = dict(_delete_=True, type='DigitsCanvasDataset', image_size=32, smallest=8, largest=14)


def tiny_canvases() -> Config:
    """The data of the tiny forms of configs on ``digits_canvas``: small canvases."""
    splits = {which: dict(dataset=dict(LITTLE, split=split)) for which, split in SPLITS.items()}
    return merge(splits, dict(validator=dict(dataset=dict(count=60))))


@recipe(data, strategy, other_logs)
def digits_segmenter(
    given: Given,
    *,
    width: Annotated[int, 'channels of the first level'] = 16,
    patch: Annotated[int, 'pixels a side that the encoder sees as one'] = 2,
    iters: Annotated[int, 'optimizer steps'] = 300,
    lr: Annotated[float, 'learning rate of AdamW'] = 3e-3,
    ema: Annotated[float | None, 'decay of the moving average (EMA) of weights; None: no EMA'] = None,
    save_every: Annotated[int, 'steps between checkpoints'] = 180,
) -> Config:
    """Which pixel of a canvas is of which digit: a convolutional encoder, and a classifier of the pixels of its cells."""
    images: dict[str, Any] = dict(dataset='digits_canvas', image_size=64, batch_size=32, val_batch_size=50, num_workers=0)
    shape = dict(multipliers=(1, 2, 4), residual_blocks=1, attention_levels=(), refine=False, norm='batch', out_channels=64)
    network = dict(type='ConvEncoder', in_channels=3 * patch**2, width=width, **shape)
    model = dict(type='ImageSegmentation', labels=10, backbone=network, patch=patch, nothing_weight=0.1)
    adam = dict(type='AdamW', lr=lr, betas=(0.9, 0.99), weight_decay=0.01, decay='matrices')
    schedule = dict(type='CosineSchedule', warmup=20, final=0.02)
    looks: dict[str, Any] = dict(ema=ema, log=50, checkpoint=dict(interval=save_every, keep_last=2))
    callbacks, little_callbacks = watching(**looks)
    trainer = dict(type='Trainer', iters=iters, model=model, optimizers=dict(segmenter=dict(adam, schedule=schedule)))
    trainer |= dict(callbacks=callbacks | other_logs(given))
    validator = dict(type='Validator', metrics=dict(segmentation=dict(type='SegmentationMetric', classes=10)))
    little = dict(
        model=dict(backbone=dict(width=8, out_channels=16)),
        optimizers=dict(segmenter=dict(schedule=dict(_delete_=True, type='CosineSchedule', warmup=2))),
        callbacks=little_callbacks,
    )
    tiny = merge(tiny_data(given), tiny_canvases(), dict(trainer=little))
    return merge(data(given, **images), strategy(given), dict(trainer=trainer, validator=validator, tiny=tiny))
