"""The Gumbel quantizer against torch's Gumbel softmax and closed forms, and under schedules."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vq.quantizers.gumbel import (
    GumbelQuantizer,
    gumbel_noise,
    kl_to_uniform,
    relaxed_weights,
    straight_through_codes,
)


@pytest.mark.parametrize('hard', [False, True])
def test_training_values_and_gradients_are_those_of_torch(hard):
    """``F.gumbel_softmax`` draws the same noise from the same seed."""
    quantizer = GumbelQuantizer(11, 5, temperature=0.6, straight_through=hard).train()
    features = torch.randn(2, 3, 4, 5, requires_grad=True)
    cotangent = torch.randn(2, 3, 4, 5)
    torch.manual_seed(7)
    ours = quantizer(features).z
    torch.manual_seed(7)
    theirs = F.gumbel_softmax(quantizer.logits(features), tau=0.6, hard=hard) @ quantizer.codebook.weight
    torch.testing.assert_close(ours, theirs)
    wanted = [features, quantizer.codebook.weight, quantizer.logits.weight, quantizer.logits.bias]
    for mine, peer in zip(
        torch.autograd.grad((ours * cotangent).sum(), wanted),
        torch.autograd.grad((theirs * cotangent).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, peer, rtol=1e-4, atol=1e-5)


def test_noise_has_the_mean_and_variance_of_a_gumbel():
    noise = gumbel_noise(torch.zeros(200_000))
    assert noise.mean().item() == pytest.approx(0.5772157, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.04)


def test_codes_are_drawn_with_the_probabilities_of_the_softmax():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0]).expand(100_000, 4)
    drawn = relaxed_weights(logits, gumbel_noise(logits), 0.3).argmax(-1).bincount(minlength=4) / len(logits)
    torch.testing.assert_close(drawn, torch.softmax(logits[0], 0), rtol=0, atol=0.01)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_evaluation_has_no_noise(dtype):
    quantizer = GumbelQuantizer(23, 7).eval()
    features = torch.randn(3, 5, 7).to(dtype)
    first, second = quantizer(features), quantizer(features)
    nearest = (features.float() @ quantizer.logits.weight.t() + quantizer.logits.bias).argmax(-1)
    assert torch.equal(first.tokens, nearest)
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.z, quantizer.codebook.weight[nearest])
    with torch.no_grad():
        assert torch.equal(quantizer(features).z, first.z)


def test_prior_term():
    """0 if all codes are equally likely, log K if one is certain, in between equal to torch's KL divergence."""
    assert kl_to_uniform(torch.zeros(4, 9)).item() == pytest.approx(0, abs=1e-6)
    assert kl_to_uniform(100 * F.one_hot(torch.arange(9)).float()).item() == pytest.approx(math.log(9))
    logits = torch.randn(6, 5, 9)
    uniform = torch.full_like(logits, 1 / 9)
    theirs = F.kl_div(uniform.log(), F.softmax(logits, -1), reduction='none').sum(-1).mean()
    torch.testing.assert_close(kl_to_uniform(logits), theirs)


def test_straight_through_value_is_exact_and_gradient_is_of_the_mix():
    weights = torch.softmax(torch.randn(50, 9) * 5, -1).requires_grad_()
    codes = torch.randn(9, 3) * 1e3
    tokens = weights.argmax(-1)
    z = straight_through_codes(weights, tokens, codes)
    assert torch.equal(z, codes[tokens])
    cotangent = torch.randn(50, 3)
    (gradient,) = torch.autograd.grad((z * cotangent).sum(), weights)
    torch.testing.assert_close(gradient, cotangent @ codes.t())


def test_schedules_may_set_temperature_and_weight():
    quantizer = GumbelQuantizer(11, 5, temperature=1.0, kl_weight=0.0, straight_through=False).train()
    features = torch.randn(400, 5)
    assert quantizer.loss_weights == {'kl': 0.0}
    spread = []
    for temperature in (1.0, 0.05):
        quantizer.temperature, quantizer.kl_weight = temperature, temperature
        torch.manual_seed(3)
        quantized = quantizer(features)
        spread.append((quantized.z - quantizer.lookup(quantized.tokens)).norm(dim=-1).mean())
        assert quantizer.loss_weights == {'kl': temperature}
    assert spread[1] < 0.2 * spread[0]  # at low temperature the mixture is nearly one code


def test_logits_are_in_true_fp32_whatever_the_run_allows():
    quantizer = GumbelQuantizer(12, 4).eval()
    settings = torch.backends.mkldnn.matmul
    seen = []
    quantizer.logits.register_forward_hook(lambda *call: seen.append((settings.fp32_precision, call[2].dtype)))
    before, settings.fp32_precision = settings.fp32_precision, 'bf16'
    try:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            quantizer(torch.randn(5, 4))
        assert seen == [('ieee', torch.float32)]
        assert settings.fp32_precision == 'bf16'
    finally:
        settings.fp32_precision = before


def test_wrong_temperature_says_so():
    from vq.core.errors import ConfigError

    with pytest.raises(ConfigError, match='temperature is -1'):
        GumbelQuantizer(4, 4, temperature=-1)


@pytest.mark.slow
@pytest.mark.parametrize('training', [False, True])
def test_compiles_whole(training):
    quantizer = GumbelQuantizer(11, 5).train(training)
    backend = 'inductor' if training else 'aot_eager'  # the kernels of evaluation are among those of training
    compiled = torch.compile(quantizer, fullgraph=True, dynamic=False, backend=backend)
    features = torch.randn(24, 5, requires_grad=True)
    quantized = compiled(features)
    assert torch.equal(quantized.z.detach(), quantizer.lookup(quantized.tokens))
    (gradient,) = torch.autograd.grad(quantized.z.square().sum(), features)
    assert gradient.abs().sum() > 0
