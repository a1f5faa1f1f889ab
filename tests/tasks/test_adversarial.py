"""The adversarial task: equality with the two-forward recipe, no unintended gradients, starts and ramps, state."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from tests.runners.parts import LatentNorm
from tests.tasks.recipes import gradients, make_batch, make_task, two_forward_losses
from vq.core.errors import ConfigError
from vq.core.records import to_float
from vq.interfaces import Loss
from vq.losses.adversarial import hinge_discriminator, non_saturating_generator, vanilla_discriminator
from vq.losses.generator_weight import AdaptiveWeight, FixedWeight
from vq.losses.penalties import LeCamPenalty, R1Penalty
from vq.losses.reconstruction import L1Loss
from vq.tasks.image_tokenization.adversarial import gradient_at, gradient_ends

ADAPTIVE = AdaptiveWeight(gain=0.75)
PERCEPTUAL = AdaptiveWeight(gain=0.8, eps=1e-8, losses=('slanted',))
ALL = {'l1', 'l2', 'slanted'}


def steps(task, batch, step=1):
    """(name, losses) of one step, handled as in the trainer: backward, then clear gradients."""
    return task.training_step(batch, task.roots(), step)


@pytest.mark.parametrize(
    ('weight', 'numerator', 'generator_loss'),
    [
        (ADAPTIVE, ALL, None),
        (PERCEPTUAL, {'slanted'}, None),
        (FixedWeight(0.5), ALL, None),
        (ADAPTIVE, ALL, non_saturating_generator),
    ],
)
def test_loss_and_gradients_equal_the_two_forward_recipe(weight, numerator, generator_loss):
    settings = {'weight': weight} | ({} if generator_loss is None else {'generator_loss': generator_loss})
    task, batch = make_task(**settings), make_batch()
    name, losses = next(steps(task, batch))
    losses.total.backward()
    found = gradients(task.tokenizer)
    assert name == 'tokenizer'

    oracle = make_task(**settings)
    eps = getattr(weight, 'eps', 0)
    total, expected_weight = two_forward_losses(
        oracle,
        batch,
        lambda pixels, adversarial: (
            weight.value if isinstance(weight, FixedWeight) else weight.gain * pixels / (adversarial + eps)
        ),
        numerator,
    )
    total.backward()
    torch.testing.assert_close(losses.total, total, rtol=1e-5, atol=1e-6)
    if isinstance(weight, AdaptiveWeight):
        torch.testing.assert_close(losses.notes['generator_weight'], expected_weight, rtol=1e-4, atol=0)
    for key, expected in gradients(oracle.tokenizer).items():
        torch.testing.assert_close(found[key], expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()), msg=key)


class EncoderWeights(Loss):
    """On the first convolution of the encoder."""

    acts_on = 'parameters'
    weight = 0.3

    def forward(self, module):
        return first_convolution(module.tokenizer).square().sum()


class Mixed(Loss):
    """Says that it acts on the image, and also depends on a trained tensor."""

    weight = 0.3
    trained: ClassVar[tuple[torch.Tensor, ...]] = ()

    def forward(self, prediction, target):
        return (prediction * self.trained[0].mean()).abs().mean()


def first_convolution(tokenizer):
    return next(parameter for parameter in tokenizer.encoder.parameters() if parameter.ndim == 4)


@pytest.mark.parametrize('compared', [None, ('slanted',)])
@pytest.mark.parametrize('extra', [('weights',), ('latent',), ('weights', 'latent')])
def test_terms_that_do_not_come_through_the_image_reach_what_they_depend_on(extra, compared):
    """They do not change the adaptive weight, and all parameters get the gradient of the whole total."""
    others = {'weights': EncoderWeights(), 'latent': LatentNorm(0.4)}
    weight = AdaptiveWeight(gain=0.75, losses=compared)
    plain, batch = make_task(weight=weight), make_batch()
    losses = dict(plain.losses.items()) | {name: others[name] for name in extra}
    task = make_task(weight=weight, losses=losses)
    _, found = next(steps(task, batch))
    found.total.backward()
    gradient = gradients(task.tokenizer)
    adaptive = found.notes['generator_weight']
    assert adaptive == next(steps(plain, batch))[1].notes['generator_weight']

    task.zero_grad(set_to_none=True)  # entirely by autograd, with the computed weight
    image = to_float(batch.image)
    latent = task.tokenizer.encode(image)
    quantized = task.tokenizer.quantize(latent)
    reconstruction = task.tokenizer.decode(quantized.z)
    total = sum(loss.weight * loss(reconstruction, image) for name, loss in task.losses.items() if name in ALL)
    total = total + sum(task.tokenizer.loss_weights[name] * value for name, value in quantized.losses.items())
    total = total + adaptive * task.generator_loss(task.discriminator(reconstruction))
    if 'weights' in extra:
        total = total + 0.3 * first_convolution(task.tokenizer).square().sum()
    if 'latent' in extra:
        total = total + 0.4 * (latent.mean.square().mean() + quantized.z.square().mean())
    total.backward()
    torch.testing.assert_close(found.total, total, rtol=1e-5, atol=1e-6)
    for key, value in gradients(task.tokenizer).items():
        torch.testing.assert_close(gradient[key], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()), msg=key)


@pytest.mark.parametrize('start', [0, 5])
def test_a_loss_on_the_image_whose_gradient_would_be_lost_is_refused(start, monkeypatch):
    """In the first step, also if the discriminator starts later. With a fixed weight nothing is lost."""
    task = make_task(losses={'l1': L1Loss(), 'mixed': Mixed()}, discriminator_start=start)
    monkeypatch.setattr(Mixed, 'trained', (first_convolution(task.tokenizer),))
    with pytest.raises(ConfigError, match='also depend on other trained tensors: mixed; their gradient there would be lost'):
        next(steps(task, make_batch()))
    task.eval().validation_step(make_batch())  # no gradient, nothing to lose
    fixed = make_task(losses={'l1': L1Loss(), 'mixed': Mixed()}, weight=FixedWeight(0.5))
    weight = first_convolution(fixed.tokenizer)
    monkeypatch.setattr(Mixed, 'trained', (weight,))
    _, losses = next(steps(fixed, make_batch()))
    (expected,) = torch.autograd.grad(losses.values['mixed'], weight, retain_graph=True)
    assert expected.abs().sum() > 0


def test_pixel_losses_run_backward_once_where_no_term_needs_more():
    task, batch = make_task(), make_batch()
    calls = []
    task.losses['slanted'].filter.register_full_backward_hook(lambda *_: calls.append(1))
    _, losses = next(steps(task, batch))
    before = len(calls)
    losses.total.backward()
    assert len(calls) == before == 1
    assert not any(losses.values[name].requires_grad for name in ALL)


def test_an_adaptive_weight_needs_a_term_that_depends_on_the_image():
    class Constant(Loss):
        weight = 1.0

        def forward(self, prediction, target):
            return target.square().mean()

    task = make_task(losses={'l1': L1Loss(), 'constant': Constant()}, weight=AdaptiveWeight(losses=('constant',)))
    with pytest.raises(ConfigError, match='compares with constant, and none of these depends on the image'):
        next(steps(task, make_batch()))


@pytest.mark.parametrize('leaf_alone', [True, False])
def test_where_gradients_end(leaf_alone):
    leaf, weight = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    value = (leaf * (1 if leaf_alone else weight)).sum()
    network = torch.nn.Linear(3, 1)
    assert gradient_ends(value, leaf, network) == (True, not leaf_alone)
    assert gradient_ends(weight.sum(), leaf, network) == (False, True)
    assert gradient_ends(weight, leaf, network) == (False, True)
    assert gradient_ends(network(leaf).sum(), leaf, network) == (True, False)
    assert gradient_ends(torch.ones(()), leaf, network) == (False, False)
    image = leaf * weight  # the output of a network: what lies behind it does not count
    assert gradient_ends(image.sum(), image, network) == (True, False)
    assert gradient_ends((image * weight).sum(), image, network) == (True, True)


def test_the_limit_clamps_before_the_gain():
    task, batch = make_task(weight=AdaptiveWeight(gain=0.5, limit=0.01)), make_batch()
    _, losses = next(steps(task, batch))
    assert losses.notes['generator_weight'] == pytest.approx(0.005)


def test_discriminator_learns_from_the_reconstruction_of_the_same_forward():
    task, batch = make_task(), make_batch()
    forwards = []
    task.tokenizer.encoder.register_forward_hook(lambda *_: forwards.append(1))
    parts = steps(task, batch)
    _, losses = next(parts)
    losses.total.backward()
    reconstruction = task.outputs.reconstruction
    with torch.no_grad():
        for parameter in task.tokenizer.parameters():  # in place of an optimizer
            parameter.add_(0.1)
    name, losses = next(parts)
    assert name == 'discriminator' and len(forwards) == 1
    real, fake = task.discriminator(to_float(batch.image)), task.discriminator(reconstruction)
    expected = 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())
    torch.testing.assert_close(losses.total, expected)
    assert losses.notes['logits_real'] == pytest.approx(float(real.detach().mean()))


@pytest.mark.parametrize('weight', [ADAPTIVE, FixedWeight(0.5)])
def test_no_gradient_ends_where_it_does_not_belong(weight):
    """The tokenizer's step leaves no gradients in the discriminator, and vice versa."""
    task, batch = make_task(weight=weight, penalties={'r1': R1Penalty(interval=1)}), make_batch()
    parts = steps(task, batch)
    _, losses = next(parts)
    losses.total.backward()
    assert all(value is None for value in gradients(task.discriminator).values())
    assert all(value is None for value in gradients(task.losses).values())
    before = gradients(task.tokenizer)
    assert all(value is not None for value in before.values())
    _, losses = next(parts)
    losses.total.backward()
    after = gradients(task.tokenizer)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(value is not None for value in gradients(task.discriminator).values())


def test_what_runs_when():
    """2 steps without discriminator, 3 with the adversarial term still off, 4 in which its weight grows."""
    task = make_task(weight=FixedWeight(0.5), discriminator_start=2, warmup=3, ramp=4)
    batch, seen = make_batch(), []
    for step in range(1, 12):
        parts = dict(steps(task, batch, step))
        weight = parts['tokenizer'].weights.get('generator', 0.0)
        seen.append((round(float(weight), 4), 'discriminator' in parts))
    assert seen[:2] == [(0.0, False)] * 2
    assert seen[2:5] == [(0.0, True)] * 3
    assert seen[5:] == [(0.125, True), (0.25, True), (0.375, True), (0.5, True), (0.5, True), (0.5, True)]


def test_without_adversarial_term_the_step_is_the_plain_one():
    task, batch = make_task(discriminator_start=1), make_batch()
    _, losses = next(steps(task, batch, 1))
    assert list(losses.values) == ['l1', 'l2', 'slanted', 'codebook', 'commitment'] and not losses.gradient_terms
    losses.total.backward()
    assert all(value is not None for value in gradients(task.tokenizer).values())


def test_lazy_penalty_comes_at_its_interval_with_its_weight_times_the_interval():
    task = make_task(penalties={'r1': R1Penalty(weight=10.0, interval=3)}, discriminator_start=1)
    batch = make_batch()
    found = {step: dict(steps(task, batch, step)).get('discriminator') for step in range(1, 9)}
    assert [step for step, losses in found.items() if losses and 'r1' in losses.values] == [2, 5, 8]
    assert found[2].weights['r1'] == 30.0
    image = to_float(batch.image).requires_grad_()
    (gradient,) = torch.autograd.grad(task.discriminator(image).sum(), image)
    torch.testing.assert_close(found[2].values['r1'], gradient.square().sum((1, 2, 3)).mean())


def test_bf16_step_stays_near_fp32():
    batch = make_batch()
    totals, weights, pulls = [], [], []
    for precise in (True, False):
        task = make_task()
        with torch.autocast('cpu', torch.bfloat16, enabled=not precise):
            _, losses = next(steps(task, batch))
        losses.total.backward()
        totals.append(losses.total.detach())
        weights.append(losses.notes['generator_weight'])
        pulls.append(task.tokenizer.decoder.conv_out.weight.grad)
    torch.testing.assert_close(totals[1], totals[0], rtol=0.03, atol=0)
    torch.testing.assert_close(weights[1], weights[0], rtol=0.1, atol=0)
    assert torch.nn.functional.cosine_similarity(pulls[0].flatten(), pulls[1].flatten(), dim=0) > 0.98


def test_gradients_at_the_image_survive_half_precision():
    """A mean over 3 million values has gradients that underflow in fp16; they are computed scaled, and unscaled later."""
    leaf = torch.rand(4, 3, 512, 512, requires_grad=True)
    scale = 2.0**22
    found = gradient_at(leaf, (leaf.half() * 2.0).float().mean(), scale) / scale
    torch.testing.assert_close(found, torch.full_like(found, 2 / leaf.numel()), rtol=1e-2, atol=0)


def test_evaluation_needs_no_discriminator():
    """Losses of a validation step are those of the pixels and the quantizer, for both tasks alike."""
    task = make_task().eval()
    outputs = task.validation_step(make_batch())
    assert set(outputs.losses) == {'l1', 'l2', 'slanted', 'codebook', 'commitment', 'total'}
    assert task.training_only_prefixes() == ('discriminator.', 'penalties.')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(discriminator_start=-1), 'discriminator_start is -1'),
        (dict(weight=AdaptiveWeight(losses=('lpips',))), "names the losses \\['lpips'\\]"),
        (dict(losses={}), 'needs a loss on the image'),
    ],
)
def test_bad_settings_say_what_is_wrong(settings, words):
    with pytest.raises(ConfigError, match=words):
        make_task(**settings)


# losses and penalties in closed form


def test_discriminator_losses():
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-0.25, -3.0])
    assert hinge_discriminator(real, fake) == pytest.approx(0.5 * (0.25 + 0.375))
    assert hinge_discriminator(real, fake, scale=1.0) == pytest.approx(0.25 + 0.375)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = 0.5 * (entropy(real, torch.ones(2)) + entropy(fake, torch.zeros(2)))
    torch.testing.assert_close(vanilla_discriminator(real, fake), expected)
    torch.testing.assert_close(non_saturating_generator(fake), entropy(fake, torch.ones(2)))


def lecam(logits, ok=None, decay=0.5):
    """Penalties and averages over steps; logits are (real, fake) per step."""
    penalty, found = LeCamPenalty(decay=decay), []
    for real, fake in logits:
        found.append(float(penalty(None, real, real, fake)))
        penalty.update(ok)
    return found, penalty


def test_lecam_follows_averages_of_earlier_steps():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])
    found, penalty = lecam([(real, fake), (real + 1, fake), (real, fake)])
    averages = [(2.0, -1.5)]  # the first step is compared with itself
    averages.append((2.0, -1.5))
    averages.append(((2.0 * 0.25 + 3.0 * 0.5) / 0.75, -1.5))
    for value, (average_real, average_fake), inputs in zip(found, averages, (real, real + 1, real), strict=True):
        expected = torch.relu(inputs - average_fake).square().mean() + torch.relu(average_real - fake).square().mean()
        assert value == pytest.approx(float(expected), rel=1e-5)
    assert penalty.weight_of_averages == pytest.approx(1 - 0.5**3)


def test_lecam_keeps_its_averages_in_a_refused_step():
    real, fake = torch.tensor([1.0]), torch.tensor([-1.0])
    _, penalty = lecam([(real, fake)])
    before = penalty.averages.clone()
    penalty(None, real, real * float('nan'), fake)
    penalty.update(torch.tensor(False))
    assert torch.equal(penalty.averages, before)


def test_lecam_sums_micro_batches():
    whole, parts = LeCamPenalty(), LeCamPenalty()
    real, fake = torch.randn(8), torch.randn(8)
    whole(None, real, real, fake)
    for half in (slice(0, 4), slice(4, 8)):
        parts(None, real[half], real[half], fake[half])
    whole.update(torch.tensor(True))
    parts.update(torch.tensor(True))
    torch.testing.assert_close(parts.averages, whole.averages)
