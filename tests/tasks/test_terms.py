"""Loss terms by where they act: what a task refuses when it is built, and terms that add up to the total."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.runners.parts import FeatureDistance, LatentNorm, ParameterNorm
from tests.shipped import composed, entries
from tests.tasks.recipes import SmallDiscriminator, gradients, make_batch, make_task, make_tokenizer
from tests.tasks.test_image_reconstruction import make_plain, make_whole
from vq.core.errors import ConfigError
from vq.core.records import Batch, Losses, to_float
from vq.interfaces import Loss
from vq.losses.adversarial import hinge_discriminator, hinge_generator
from vq.losses.generator_weight import AdaptiveWeight, FixedWeight
from vq.losses.penalties import LeCamPenalty, R1Penalty
from vq.losses.reconstruction import L1Loss
from vq.registries import VQTaskRegistry
from vq.runners.callbacks.log import LogCallback
from vq.strategies.base import BaseStrategy
from vq.tasks.image_reconstruction.task import AdversarialReconstruction, ImageReconstruction
from vq.tasks.image_tokenization.task import ImageTokenization

EPS = torch.finfo(torch.float32).eps


# refused when built


class Misplaced(L1Loss):
    acts_on = 'pixels'  # type: ignore[assignment]


class Misdeclared(L1Loss):
    acts_on = 'parameters'


def tokenization(losses: dict[str, Loss]) -> Any:
    return ImageTokenization(make_tokenizer(), losses)


def reconstruction(losses: dict[str, Loss]) -> Any:
    return ImageReconstruction(make_whole(), losses)


def adversarial_reconstruction(losses: dict[str, Loss]) -> Any:
    return AdversarialReconstruction(
        make_whole(), losses, SmallDiscriminator(), hinge_generator, hinge_discriminator, FixedWeight()
    )


def adversarial(losses: dict[str, Loss], **settings: Any) -> Any:
    return make_task(losses=losses, **settings)


@pytest.mark.parametrize(
    ('make', 'losses', 'words'),
    [
        (
            tokenization,
            {'l1': L1Loss(), 'align': FeatureDistance()},
            r"ImageTokenization cannot use the loss 'align' \(FeatureD",
        ),
        (
            tokenization,
            {'align': FeatureDistance()},
            'acts on the features, and losses of this task act on hidden, image, latent, par',
        ),
        (reconstruction, {'small': LatentNorm()}, "ImageReconstruction cannot use the loss 'small' .* acts on the latent"),
        (adversarial_reconstruction, {'small': LatentNorm()}, 'AdversarialReconstruction cannot use .* acts on the latent'),
        (adversarial, {'l1': L1Loss(), 'align': FeatureDistance()}, "AdversarialTokenization cannot use the loss 'align'"),
        (tokenization, {'l1': Misplaced()}, "declares acts_on = 'pixels'"),
        (
            tokenization,
            {'decay': Misdeclared()},
            r'acts on the parameters, so it is called with \(module\), and its forward takes \(prediction, target\)',
        ),
        (tokenization, {'commitment': L1Loss()}, "called 'commitment', which is the name of a loss of the quantizer"),
        (tokenization, {'total': L1Loss()}, 'which is the name of the sum of all terms'),
        (adversarial, {'generator': L1Loss()}, 'which is the name of the adversarial loss'),
    ],
)
def test_a_term_that_a_task_cannot_use_is_refused_when_built(make: Any, losses: dict[str, Loss], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(losses)


@pytest.mark.parametrize('name', ['total', 'discriminator', 'logits_fake'])
def test_a_penalty_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ConfigError, match=f"called '{name}'"):
        make_task(penalties={name: R1Penalty()})


@pytest.mark.parametrize(
    ('losses', 'weight', 'words'),
    [
        ({'l1': L1Loss(), 'decay': ParameterNorm()}, AdaptiveWeight(losses=('decay',)), r"names the losses \['decay'\]"),
        ({'decay': ParameterNorm()}, AdaptiveWeight(), 'needs a loss on the image'),
    ],
)
def test_an_adaptive_weight_balances_losses_on_the_image(losses: dict[str, Loss], weight: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_task(losses=losses, weight=weight)


# where they act, they act


def test_terms_on_latent_and_parameters_get_what_they_act_on() -> None:
    torch.manual_seed(0)
    task, batch = tokenization({'l1': L1Loss(), 'small': LatentNorm(0.5), 'decay': ParameterNorm(0.25)}), make_batch()
    ((_, losses),) = task.training_step(batch, task.roots(), 1)
    losses.total.backward()
    found = gradients(task.tokenizer)
    task.zero_grad(set_to_none=True)
    tokenizer, image = task.tokenizer, to_float(batch.image)
    latent = tokenizer.encode(image)
    quantized = tokenizer.quantize(latent)
    total = (tokenizer.decode(quantized.z) - image).abs().mean()
    total = total + sum(tokenizer.loss_weights[name] * value for name, value in quantized.losses.items())
    total = total + 0.5 * (latent.mean.square().mean() + quantized.z.square().mean())
    total = total + 0.25 * sum(value.square().sum() for value in tokenizer.parameters())
    total.backward()
    torch.testing.assert_close(losses.total, total)
    for name, expected in gradients(tokenizer).items():
        torch.testing.assert_close(found[name], expected, msg=name)
    assert {'small', 'decay'} <= set(task.eval().validation_step(batch).losses)


def test_parameters_of_a_frozen_tokenizer_are_no_parameters_that_are_trained() -> None:
    task = reconstruction({'l1': L1Loss(), 'decay': ParameterNorm(1.0)})
    ((_, losses),) = task.training_step(make_batch(), task.roots(), 1)
    whole = task.tokenizer
    expected = sum(value.square().sum() for part in (whole.decoder, whole.pre_decode) for value in part.parameters())
    torch.testing.assert_close(losses.values['decay'], expected)


# what is logged adds up


def logged(steps: list[tuple[str, Losses]], optimizers: Any) -> dict[str, float]:
    """What a log line says of these steps."""
    callback = LogCallback(interval=1)
    callback.runner = SimpleNamespace(optimizers=optimizers, strategy=BaseStrategy('cpu'))  # type: ignore[assignment]
    for name, losses in steps:
        callback.after_losses(name, losses)
    return callback._means()


def assert_adds_up(line: dict[str, float], notes: set[str], optimizers: Any) -> None:
    """The terms of each optimizer against its total, which is a sum in fp32: to its rounding, added up in float64."""
    for optimizer in optimizers:
        start = f'{optimizer}/' if len(optimizers) > 1 else ''
        terms = {name.removeprefix(start): value for name, value in line.items() if name.startswith(start)}
        total = terms.pop('total', None)
        if total is not None:
            parts = [value for name, value in terms.items() if name not in notes]
            assert parts and abs(sum(parts) - total) <= 8 * EPS * sum(map(abs, parts)), (optimizer, terms, total)


NOTES = {'generator_weight', 'alignment_weight', 'logits_real', 'logits_fake'}


def images_for(config: Any) -> Batch:
    """Two images of the size that the config's data has."""
    transform = config.trainer.dataset.get('transform') or {}
    size = transform.get('image_size') or config.trainer.dataset.get('image_size') or 32
    image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Batch(image, ['a', 'b'], torch.arange(2), category=torch.tensor([0, 1]))


def tokenizer_entries() -> list[str]:
    """One entry of each set of loss terms, among the shipped configs that train on images."""
    found: dict[str, str] = {}
    for entry in entries():
        model = composed(entry).trainer.model
        if 'losses' in model and model.get('tokenizer') is not None:
            tokenizer = model.tokenizer
            kinds = [model.type, model.losses, model.get('weight'), model.get('penalties'), model.get('generator_loss')]
            kinds += [tokenizer.get('quantizer'), tokenizer.type]
            found.setdefault(repr(kinds), entry)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize('entry', tokenizer_entries())
def test_terms_of_shipped_configs_add_up_to_the_total(entry: str) -> None:
    config = composed(entry)
    torch.manual_seed(0)
    model = {name: value for name, value in config.trainer.model.items() if name not in ('warmup', 'ramp')}
    task = VQTaskRegistry.build({**model, **({'discriminator_start': 0} if 'discriminator' in model else {})}, 'model').train()
    roots = task.roots()
    steps = list(task.training_step(images_for(config), roots, 10))
    assert [name for name, _ in steps] == list(roots)
    assert_adds_up(logged(steps, roots), NOTES, roots)
    assert len(steps[0][1].values) > (1 if 'discriminator' in roots else 0)


@pytest.mark.parametrize('ramp', [0, 3])
@pytest.mark.parametrize('weight', [AdaptiveWeight(gain=0.75, losses=('slanted',)), FixedWeight(0.3)])
def test_a_log_interval_adds_up_while_terms_come_and_go(weight: Any, ramp: int) -> None:
    """Seven steps over the start of the discriminator, of its ramp, and a penalty in every third step."""
    penalties = {'r1': R1Penalty(interval=3), 'lecam': LeCamPenalty()}
    task = make_task(weight=weight, penalties=penalties, discriminator_start=2, warmup=1, ramp=ramp, discriminator_weight=0.5)
    roots, steps = task.roots(), []
    for step in range(1, 8):
        steps += list(task.training_step(make_batch(step), roots, step))
        task.update()
    line = logged(steps, roots)
    assert {'tokenizer/generator', 'discriminator/r1', 'discriminator/lecam'} <= set(line)
    assert_adds_up(line, NOTES, roots)
    own = [losses.weighted['slanted'].detach() for name, losses in steps if name == 'tokenizer']
    assert line['tokenizer/slanted'] == pytest.approx(float(torch.stack(own).mean()), rel=1e-6)


def test_results_of_a_validation_have_no_weights_but_in_the_total() -> None:
    task = make_task(losses={'l1': L1Loss(0.3), 'small': LatentNorm(0.7), 'decay': ParameterNorm()}).eval()
    losses = {name: float(value) for name, value in task.validation_step(make_batch()).losses.items()}
    total = losses.pop('total')
    weights = {'l1': 0.3, 'small': 0.7, 'decay': 1e-3, **task.tokenizer.loss_weights}
    assert set(losses) == set(weights)
    assert abs(sum(weights[name] * value for name, value in losses.items()) - total) <= 8 * EPS * total


def test_the_log_names_weights_that_are_not_one() -> None:
    callback = LogCallback(interval=1)
    callback.runner = SimpleNamespace(optimizers={'tokenizer': None}, strategy=BaseStrategy('cpu'))  # type: ignore[assignment]
    task = make_task(losses={'l1': L1Loss(0.3), 'l2': L1Loss()}, weight=FixedWeight(0.2))
    name, losses = next(task.training_step(make_batch(), task.roots(), 1))
    callback.after_losses(name, losses)
    resumed = LogCallback(interval=1)
    resumed.runner = callback.runner
    resumed.load_rank_state_dict(callback.rank_state_dict())
    assert callback._weights() == resumed._weights() == {'l1': 0.3, 'commitment': 0.25, 'generator': 0.2}
    assert callback._weights() == {}


def test_state_of_an_earlier_version_starts_a_new_interval() -> None:
    callback = LogCallback(interval=1)
    callback.runner = SimpleNamespace(strategy=BaseStrategy('cpu'))  # type: ignore[assignment]
    callback.load_rank_state_dict({'open': [['tokenizer', ['l1', 'total'], torch.ones(2), 3]]})
    assert not callback.sums and not callback.counts


def test_outputs_for_latent_terms_are_kept_only_for_them() -> None:
    """They are outputs of the wrapped root, where DDP and FSDP look for tensors: in tuples."""
    image = to_float(make_batch().image)
    plain, with_latent = tokenization({'l1': L1Loss()}), tokenization({'small': LatentNorm()})
    assert plain.roots()['tokenizer'](image).latent is None
    found = with_latent.roots()['tokenizer'](image).latent
    assert isinstance(found, tuple) and isinstance(found.z, Tensor) and found.logvar is None
    assert make_plain().terms == {'image': ('l1', 'l2'), 'parameters': ()}
