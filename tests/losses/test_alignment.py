"""The alignment loss in tasks: places, gradients, the teacher's calls, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.tasks.recipes import make_batch, make_task, make_tokenizer
from vq.core.errors import ConfigError
from vq.core.records import Latent, to_float
from vq.losses.alignment import AlignmentLoss
from vq.losses.generator_weight import AdaptiveWeight, FixedWeight
from vq.losses.margins import MarginLoss
from vq.losses.reconstruction import L1Loss, MSELoss
from vq.losses.smooth_l1 import SmoothL1Loss
from vq.registries import VQTeacherRegistry
from vq.tasks.image_tokenization.adversarial import AdversarialTokenization
from vq.tasks.image_tokenization.task import ImageTokenization

TEACHER = dict(type='DINOv2Teacher', dimension=16, depth=2, heads=2, image_size=28)
PLACES = [('latent', 6, (6, 5)), ('tokenizer.decoder.levels.0', 4, (12, 10)), ('tokenizer.encoder.levels.1', 4, (6, 5))]


def aligned(place: str = 'latent', channels: int = 6, **settings: Any) -> AlignmentLoss:
    values: dict[str, Any] = dict(distance=MarginLoss(), weight=0.3, **settings)
    return AlignmentLoss(VQTeacherRegistry.build(TEACHER, 'teacher'), channels, place=place, **values)


def make_plain(loss: AlignmentLoss) -> ImageTokenization:
    torch.manual_seed(0)
    return ImageTokenization(make_tokenizer(), {'l1': L1Loss(), 'align': loss})


def first_losses(task: ImageTokenization) -> Any:
    return next(iter(task.training_step(make_batch(), task.roots(), 1)))[1]


@pytest.mark.parametrize(('place', 'channels', 'cells'), PLACES)
@pytest.mark.parametrize('grid', [None, 3])
def test_the_loss_written_out_at_every_place(place: str, channels: int, cells: tuple[int, int], grid: int | None) -> None:
    loss = aligned(place, channels, grid=grid, layers=[0, 1])
    task = make_plain(loss).train()
    kept: dict[str, Tensor] = {}
    module = None if place == 'latent' else task.get_submodule(place)
    hook = None if module is None else module.register_forward_hook(lambda *seen: kept.update(hidden=seen[2]))
    losses = first_losses(task)
    if hook is not None:
        hook.remove()
    hidden = kept['hidden'] if kept else task.tokenizer.encode(to_float(make_batch().image)).mean
    assert hidden.shape[2:] == cells
    prediction = F.conv2d(hidden, loss.head.weight, loss.head.bias)
    if grid is not None:
        prediction = F.interpolate(prediction, (grid, grid), mode='bilinear', antialias=True)
    image = to_float(make_batch().image)
    sides = [14 * side for side in prediction.shape[2:]]
    goal = loss.teacher.features(F.interpolate(image, sides, mode='bicubic', antialias=True).clamp(-1, 1), [0, 1]).patches
    torch.testing.assert_close(losses.values['align'], MarginLoss()(prediction, goal))
    expected = losses.values['l1'] + 0.3 * losses.values['align']
    expected = expected + sum(task.tokenizer.loss_weights[name] * losses.values[name] for name in task.tokenizer.loss_weights)
    torch.testing.assert_close(losses.total, expected)


@pytest.mark.parametrize(('place', 'channels', 'cells'), PLACES)
def test_gradients_reach_what_they_should(place: str, channels: int, cells: tuple[int, int]) -> None:
    """The head, and all that runs before the place; nothing behind it, nothing in the teacher. Called once."""
    loss = aligned(place, channels)
    calls: list[bool] = []
    features = loss.teacher.features
    loss.teacher.features = lambda *arguments: calls.append(torch.is_grad_enabled()) or features(*arguments)
    task = make_plain(loss).train()
    losses = first_losses(task)
    assert calls == [False]
    losses.values['align'].backward()
    reached = {name for name, value in task.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert {'losses.align.head.weight', 'losses.align.head.bias', 'tokenizer.encoder.stem.weight'} <= reached
    assert ('tokenizer.decoder.stem.weight' in reached) == place.startswith('tokenizer.decoder')
    assert not any(name.startswith(('tokenizer.decoder.conv_out', 'losses.align.teacher')) for name in reached)
    learned = {id(value) for value in task.roots()['tokenizer'].parameters() if value.requires_grad}
    assert {id(value) for value in loss.head.parameters()} <= learned
    assert not {id(value) for value in loss.teacher.parameters()} & {id(v) for v in task.roots()['tokenizer'].parameters()}


def test_the_adaptive_weight_carries_it_through() -> None:
    """The gradients of an adversarial step with the loss are those without it plus those of the loss alone."""

    def gradients_of(**more: Any) -> tuple[AdversarialTokenization, dict[str, Tensor]]:
        task = make_task(losses={'l1': L1Loss(), **more}).train()
        losses = first_losses(task)
        losses.total.backward()
        return task, {name: value.grad for name, value in task.named_parameters() if value.grad is not None}

    torch.manual_seed(5)
    loss = aligned('tokenizer.decoder.levels.0', 4)
    _, without = gradients_of()
    task, found = gradients_of(align=loss)
    task.zero_grad()
    plain = make_task(losses={'l1': L1Loss(), 'align': loss}).train()
    (0.3 * first_losses(plain).values['align']).backward()
    alone = {name: value.grad for name, value in plain.named_parameters() if value.grad is not None}
    assert found.keys() == without.keys() | {'losses.align.head.weight', 'losses.align.head.bias'}
    for name, value in found.items():
        expected = sum(part[name] for part in (without, alone) if name in part)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.parametrize('weight', [None, FixedWeight(), AdaptiveWeight()])
def test_the_ratio_of_gradients_at_the_latent(weight: Any) -> None:
    """By autograd, on a second forward; in a plain task and in both kinds of adversarial ones."""
    loss = aligned(adaptive=True)
    terms = {'l1': L1Loss(), 'l2': MSELoss(0.4), 'align': loss}
    if weight is None:
        torch.manual_seed(0)
        task = ImageTokenization(make_tokenizer(), terms).train()
    else:
        task = make_task(losses=terms, weight=weight).train()
    losses = first_losses(task)
    image = to_float(make_batch().image)
    mean = task.tokenizer.encode(image).mean
    z = task.tokenizer.code(Latent(mean))[0]
    found = task.tokenizer.decode(z)
    pixels = L1Loss()(found, image) + 0.4 * MSELoss()(found, image)
    norms = [torch.autograd.grad(value, mean, retain_graph=True)[0].norm() for value in (pixels, loss(loss.head(mean), image))]
    torch.testing.assert_close(losses.weights['align'], 0.3 * norms[0] / norms[1], rtol=1e-4, atol=0)
    assert losses.notes['align_weight'] is losses.weights['align'] and not losses.weights['align'].requires_grad
    losses.total.backward()
    task.eval()
    with torch.no_grad():
        outputs = task.validation_step(make_batch())
    assert 'align' in outputs.losses


@pytest.mark.slow
def test_a_compiled_decoder_gives_the_same() -> None:
    from vq.strategies.compiling import CompileSettings, compile_part

    loss = aligned('tokenizer.decoder.levels.0', 4, projection='mlp', width=8)
    task = make_plain(loss).train()
    plain = first_losses(task)
    compile_part(task.tokenizer.decoder, CompileSettings('aot_eager'))
    for _ in range(2):
        again = first_losses(task)
        torch.testing.assert_close(again.values['align'], plain.values['align'])
    again.values['align'].backward()
    assert task.tokenizer.encoder.stem.weight.grad.abs().sum() > 0
    torch._dynamo.reset()


def test_nothing_is_kept_between_steps_and_outside() -> None:
    task = make_plain(aligned('tokenizer.decoder.levels.0', 4)).train()
    first_losses(task)
    taps = task.roots()['tokenizer'].hidden.taps.values()
    task.tokenizer.decode(torch.zeros(1, 6, 2, 2))
    assert all(tap.kept is None and not tap.open for tap in taps)
    with torch.no_grad():
        found = task.eval().validation_step(make_batch())
    assert set(found.losses) >= {'align', 'total'} and float(found.losses['align']) > 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'tokenizer.decoder.level.0', which the model does not have"):
        make_plain(aligned('tokenizer.decoder.level.0', 4))
    with pytest.raises(ConfigError, match=r'takes maps of 5 channels') as error:
        first_losses(make_plain(aligned('latent', 5)).train())
    assert error.value.hint == 'Set its channels to 6.'
    with pytest.raises(ConfigError, match='which acts on the image'):
        AlignmentLoss(VQTeacherRegistry.build(TEACHER, 'teacher'), 6, L1Loss())
    with pytest.raises(ConfigError, match='of weight 2'):
        AlignmentLoss(VQTeacherRegistry.build(TEACHER, 'teacher'), 6, SmoothL1Loss(weight=2.0))
    with pytest.raises(ConfigError, match='compares 6 channels with 16'):
        aligned(projection='none')
    with pytest.raises(ConfigError, match='is adaptive at'):
        aligned('tokenizer.decoder.levels.0', 4, adaptive=True)
    with pytest.raises(ConfigError, match='needs a loss on the image'):
        ImageTokenization(make_tokenizer(), {'align': aligned(adaptive=True)})
    with pytest.raises(ConfigError, match='did not run in a step'):
        first_losses(make_plain(aligned('tokenizer.statistics', 4)).train())


def test_the_mlp_is_that_of_repa() -> None:
    head = aligned(projection='mlp', width=12).head
    assert isinstance(head, nn.Sequential)
    assert [type(part).__name__ for part in head] == ['Conv2d', 'SiLU', 'Conv2d', 'SiLU', 'Conv2d']
    assert [tuple(part.weight.shape) for part in head if isinstance(part, nn.Conv2d)] == [
        (12, 6, 1, 1),
        (12, 12, 1, 1),
        (16, 12, 1, 1),
    ]
