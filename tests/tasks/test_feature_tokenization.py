"""The task of VQ-KD and Cluster: its total, one call of the teacher, where gradients go, what checkpoints leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.runners.test_no_waiting import nobody_waits
from tests.tasks.recipes import make_batch
from tests.tokenizers.patch_teacher import PatchTeacher
from tests.tokenizers.test_feature_tokenizers import CLUSTERS, ENCODER, FEATURES, TEACHER, build
from vq.core.errors import ConfigError
from vq.core.records import Latent, Losses, to_float
from vq.interfaces import ActsOn, Loss
from vq.io.checkpoints import model_state
from vq.losses.features import CosineLoss
from vq.losses.reconstruction import MSELoss
from vq.registries import VQTaskRegistry
from vq.tasks.image_tokenization.features import FeatureTokenization


class LatentSize(Loss):
    acts_on: ActsOn = 'latent'
    weight = 0.1

    def forward(self, latent: Latent, z: Tensor) -> Tensor:
        return latent.mean.square().mean() + z.mean()


def make_task(kind: str = 'VQKD', **settings: Any) -> FeatureTokenization:
    if kind == 'Cluster':
        return FeatureTokenization(build('Cluster'), **settings)
    distilled = dict(losses={'cosine': CosineLoss(0.7)}, teacher=PatchTeacher(width=5, patch=2))
    return FeatureTokenization(build('VQKD'), **{**distilled, **settings})


def step(task: FeatureTokenization, number: int = 1, size: int = 16) -> Losses:
    [(name, losses)] = list(task.training_step(make_batch(number, 4, size, size), task.roots(), number))
    assert name == 'tokenizer'
    return losses


def test_the_total_is_that_of_the_paper() -> None:
    task = make_task().train()
    losses = step(task)
    image = to_float(make_batch(1, 4, 16, 16).image)
    latent = task.tokenizer.encode(image).mean
    x = F.normalize(latent, dim=1)
    codes = task.tokenizer.lookup(task.outputs.tokens)  # type: ignore[arg-type]
    prediction = task.tokenizer.predict(x + (codes - x).detach())  # type: ignore[operator]
    small = F.interpolate(image, (8, 8), mode='bilinear')  # a patch of 2 pixels for each cell of 4
    cosine = F.cosine_similarity(prediction, PatchTeacher(width=5, patch=2).features(small).patches, dim=1)
    torch.testing.assert_close(losses.values['cosine'], (1 - cosine).mean())
    commitment = (x - codes).square().mean()  # of 0.25 by the quantizer's default
    torch.testing.assert_close(losses.total, 0.7 * (1 - cosine).mean() + 0.25 * commitment)
    torch.testing.assert_close(sum(losses.weighted.values()), losses.total)
    assert {*losses.weighted} == {'cosine', 'commitment'}


def test_losses_on_the_latent_and_of_a_cluster_are_in_the_total() -> None:
    losses = step(make_task(losses={'cosine': CosineLoss(), 'size': LatentSize()}).train())
    assert {*losses.weighted} == {'cosine', 'commitment', 'size'}
    losses = step(make_task('Cluster', losses={'size': LatentSize()}).train())
    assert {*losses.weighted} == {'codebook', 'commitment', 'size'}
    torch.testing.assert_close(sum(losses.weighted.values()), losses.total)


@pytest.mark.parametrize('bf16', [False, True])
def test_a_step_calls_the_teacher_once_and_without_gradients(bf16: bool) -> None:
    task = make_task().train()
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        losses = step(task)
    assert losses.total.dtype == torch.float32
    losses.total.backward()
    teacher = task.teacher
    assert isinstance(teacher, PatchTeacher)
    assert teacher.seen == [((4, 3, 8, 8), torch.bfloat16 if bf16 else torch.float32, False)]
    task.validation_step(make_batch(2, 3, 16, 16))
    assert len(teacher.seen) == 2
    for name, parameter in task.named_parameters():
        if name.startswith('teacher.'):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for part in ('encoder.stem', 'feature_decoder.task_out'):
        assert task.tokenizer.get_submodule(part).weight.grad.any()  # type: ignore[union-attr, operator]


def test_the_encoder_of_a_cluster_runs_once_and_outside_of_the_root() -> None:
    task = make_task('Cluster').train()
    step(task).total.backward()
    teacher = task.tokenizer.encoder.teacher  # type: ignore[union-attr]
    assert isinstance(teacher, PatchTeacher) and teacher.seen == [((4, 3, 16, 16), torch.float32, False)]
    root = task.roots()['tokenizer']
    assert [name for name, _ in root.named_parameters()] == ['quantizer.codebook.weight']
    assert task.tokenizer.quantizer.codebook.weight.grad.any()  # type: ignore[union-attr]
    assert not teacher.training and task.training


@pytest.mark.parametrize('kind', ['VQKD', 'Cluster'])
def test_validation_has_tokens_and_the_losses_of_training_without_weights(kind: str) -> None:
    task = make_task(kind).eval()
    batch = make_batch(3, 4, 20, 12)
    outputs = task.validation_step(batch)
    assert outputs.reconstruction is None and outputs.tokens is not None
    assert torch.equal(outputs.tokens, task.tokenizer.tokenize(to_float(batch.image)))
    terms = {'codebook', 'commitment', 'total'} if kind == 'Cluster' else {'cosine', 'commitment', 'total'}
    assert {*outputs.losses} == terms and all(value.isfinite() for value in outputs.losses.values())
    assert task.counted_codes.value == 20 and task.codebooks == (20,)


@pytest.mark.parametrize(('kind', 'place'), [('VQKD', 'teacher.'), ('Cluster', 'tokenizer.encoder.teacher.')])
def test_the_teacher_stays_out_of_checkpoints(kind: str, place: str) -> None:
    task = make_task(kind)
    assert [*task.frozen_parts()] == [place.removesuffix('.')]
    kept = model_state(task)
    assert len(kept) > 1 and not any(name.startswith(place) for name in kept)
    assert {name for name in task.state_dict() if name.startswith(place)} == {*task.state_dict()} - {*kept}


@pytest.mark.parametrize('kind', ['VQKD', 'Cluster'])
def test_a_step_never_waits(kind: str) -> None:
    task = make_task(kind).train()
    with nobody_waits(torch.device('cpu')):
        step(task).total.backward()
        task.update()


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(teacher=None), 'has no teacher'),
        (dict(losses={}), 'has no loss on features'),
        (dict(teacher=None, losses={}), 'has no teacher and no loss on features'),
        (dict(teacher=PatchTeacher(width=4)), 'feature decoder has 5 channels, and the layer .last. of PatchTeacher has 4'),
        (dict(losses={'l2': MSELoss()}), 'acts on the image, and losses of this task act on features, latent'),
        (dict(losses={'commitment': CosineLoss()}), 'is the name of a loss of the quantizer'),
    ],
)
def test_parts_that_do_not_fit(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_task(**settings)


def test_tasks_refuse_each_others_tokenizers() -> None:
    conv = dict(width=4, multipliers=(1, 1), attention_levels=(), refine=False, norm_groups=2, residual_blocks=1)
    pixels = dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', out_channels=6, **conv),
        quantizer=dict(CLUSTERS, update=None),
        decoder=dict(type='ConvDecoder', **conv),
    )
    vqkd = dict(type='VQKD', encoder=ENCODER, quantizer=CLUSTERS, feature_decoder=FEATURES)
    cluster = dict(type='Cluster', encoder=TEACHER, quantizer=CLUSTERS)

    def task(kind: str, tokenizer: dict[str, Any], **more: Any) -> nn.Module:
        return VQTaskRegistry.build({'type': kind, 'tokenizer': tokenizer, **more}, 'model')

    with pytest.raises(ConfigError, match='without a pixel decoder, and was given a VQGAN'):
        task('FeatureTokenization', pixels)
    for other in (vqkd, cluster):
        with pytest.raises(ConfigError, match='makes no pixels, so it cannot be trained to reproduce images'):
            task('ImageTokenization', other, losses=dict(l2=dict(type='MSELoss')))
    with pytest.raises(ConfigError, match='a Cluster has no feature_decoder'):
        task('FeatureTokenization', cluster, teacher=dict(type='PatchTeacher'), losses=dict(cosine=dict(type='CosineLoss')))
