"""Image classification: linear probes of frozen tokenizers, and a small classifier of digits from scratch."""

from __future__ import annotations

from typing import Annotated, Any

from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.core.specs import ImageSize
from vq.recipes.data import data, tiny_data
from vq.recipes.frozen import Frozen, frozen_tokenizer
from vq.recipes.parts import other_logs, watching
from vq.recipes.strategy import strategy
from vq.recipes.teachers import TINY_DIGITS, digits_network, teacher

IMAGES: dict[str, Any] = dict(dataset='digits', image_size=32, augmentation=None, num_classes=10)
LOADING: dict[str, Any] = dict(batch_size=64, val_batch_size=60, num_workers=0)


@recipe(frozen_tokenizer, data, strategy, other_logs)
def linear_probe(
    given: Given,
    *,
    backbone: Annotated[Part | None, 'an encoder to train in place of the frozen tokenizer; None: the tokenizer'] = None,
    tiny_backbone: Annotated[Part, 'overrides of that encoder in the tiny form'] = {},
    num_classes: Annotated[int, 'number of classes'] = 1000,
    grid: Annotated[int, 'features are average-pooled to grid x grid cells; 1: one mean over the image'] = 1,
    image_size: Annotated[ImageSize, 'pixels a side, or (height, width)'] = 256,
    iters: Annotated[int, 'optimizer steps'] = 30_000,
    lr: Annotated[float, 'learning rate of LARS'] = 1.6,
    optimizer: Annotated[Part | None, 'optimizer in place of LARS; None: LARS'] = None,
    ema: Annotated[float | None, 'decay of the moving average (EMA) of weights; None: no EMA'] = None,
    save_every: Annotated[int, 'steps between checkpoints'] = 1000,
) -> Config:
    """The linear probe: how well a linear classifier predicts classes from the codes of a frozen tokenizer.

        image -> tokenizer -> tokens -> code vectors -> mean over cells -> batch norm -> linear layer -> cross entropy

    Batch sizes are per rank. The strategy fsdp is not supported: LARS needs the norms of whole, unsharded tensors.
    """
    probed = Frozen(backbone, tiny_backbone, {}, {}, []) if backbone else frozen_tokenizer(given, image_size=image_size)
    photos = dict(dataset='imagenet', augmentation='strong', batch_size=512, val_batch_size=64, num_workers=10)
    model = dict(type='ImageClassification', classes=num_classes, grid=grid, backbone=probed.part)
    lars = dict(type='LARS', lr=lr, momentum=0.9, weight_decay=0.0, trust=0.001)
    stepped = dict(classifier=dict(optimizer or lars, schedule=dict(type='CosineSchedule')))
    whole, small = watching(ema=ema, log=50, checkpoint=dict(interval=save_every, keep_last=3))
    trainer = dict(type='Trainer', iters=iters, model=model, optimizers=stepped, callbacks={**whole, **other_logs(given)})
    validator = dict(type='Validator', metrics=dict(accuracy=dict(type='AccuracyMetric', top=[1, 5])))
    tiny = merge(tiny_data(given), dict(trainer=dict(model=dict(backbone=probed.tiny), callbacks=small)))
    return merge(
        probed.imports,
        data(given, image_size=image_size, **photos),
        strategy(given),
        dict(trainer=trainer, validator=validator, tiny=tiny),
    )


@recipe(linear_probe, teacher, hides=('teacher_layers',))
def teacher_probe(
    given: Given,
    *,
    layers: Annotated[str, "its layer: 'last', 'penultimate' or 'sum_of_last_K'"] = 'last',
) -> Config:
    """The linear probe of a frozen network that understands images, in place of a tokenizer."""
    chosen = teacher(given, teacher_layers=layers)
    encoder = dict(type='TeacherEncoder', teacher=chosen.part, layers=layers)
    tiny = dict(teacher=chosen.tiny, downsampling=8)
    return linear_probe(given, backbone=encoder, tiny_backbone=tiny, image_size=chosen.side)


@recipe(linear_probe)
def digits_probe(given: Given) -> Config:
    """The linear probe on a digits tokenizer: the input of the linear layer is all 4 x 4 cells, not their mean."""
    tokenizer, training = dict(it_config='configs/digits/vq_ema.py', grid=4), dict(iters=300, lr=5.0, save_every=150)
    return linear_probe(given, **IMAGES, **LOADING, **tokenizer, **training)


@recipe(linear_probe)
def digits_classifier(
    given: Given,
    *,
    classifier_width: Annotated[int, 'channels of the first level'] = 16,
    lr: Annotated[float, 'learning rate'] = 3e-3,
) -> Config:
    """A small convolutional classifier of handwritten digits. FID and related figures on digits use its features."""
    network = digits_network(classifier_width)
    adam = dict(type='AdamW', lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    training: dict[str, Any] = dict(iters=200, save_every=100, optimizer=adam)
    return linear_probe(given, backbone=network, tiny_backbone=TINY_DIGITS, **IMAGES, **LOADING, **training)


@recipe(digits_classifier)
def digits_features(
    given: Given, *, features_run: Annotated[str, 'run of ic/digits.py, a checkpoint of it, or a file'] = 'ic/digits'
) -> Part:
    """The feature network for FID and related figures on digits: the classifier of ic/digits.py, 64 features, 10 logits."""
    classifier = digits_classifier(given)['trainer']['model']
    return dict(type='ClassifierFeatures', classifier=classifier, weights=features_run, image_size=32)
