"""Sign quantizers: tokens of any width, both bit orders, no table of codes."""

from __future__ import annotations

import pytest
import torch

from tests.quantizers.measuring import largest_tensor
from vq.core.errors import ConfigError
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer, reverse_bits

KINDS = [LookupFreeQuantizer, BinarySphericalQuantizer]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bits', [1, 18, 40, 62])
@pytest.mark.parametrize('kind', KINDS)
def test_tokens_and_codes_are_inverse(kind, bits, dtype):
    """Also for tokens beyond the exact integers of fp32."""
    quantizer = kind(bits).eval()
    tokens = torch.randint(quantizer.codebook_size, (300,))
    tokens[:2] = torch.tensor([0, quantizer.codebook_size - 1])
    codes = quantizer.lookup(tokens)
    torch.testing.assert_close(codes.abs(), torch.full_like(codes, 1 if kind is LookupFreeQuantizer else bits**-0.5))
    assert torch.equal(quantizer(codes.to(dtype)).tokens, tokens)
    assert quantizer.bits == bits


def test_bit_orders_by_hand():
    x = torch.tensor([[1.0, -1.0, 2.0, 3.0], [0.5, 0.0, -1.0, -2.0]])
    lowest = LookupFreeQuantizer(4)(x).tokens
    highest = LookupFreeQuantizer(4, bit_order='first_highest')(x).tokens
    assert lowest.tolist() == [0b1101, 0b0001]
    assert highest.tolist() == [0b1011, 0b1000]
    assert torch.equal(reverse_bits(lowest, 4), highest)
    assert torch.equal(reverse_bits(highest, 4), lowest)


@pytest.mark.parametrize('kind', KINDS)
def test_against_vector_quantize_pytorch(kind):
    """Another width and temperature than the golden figures: tokens, the whole training loss, all its gradients."""
    package = pytest.importorskip('vector_quantize_pytorch')
    theirs = package.LFQ(
        dim=14, codebook_size=2**14, spherical=kind is BinarySphericalQuantizer, entropy_loss_weight=0.1,
        commitment_loss_weight=0.25,
    ).train()  # fmt: skip
    entropy = EntropyLoss(0.1, temperature=0.1, floor='clamp')
    ours = kind(14, 0.25, entropy, entropy_group=None, bit_order='first_highest').train()
    torch.manual_seed(0)
    x = torch.randn(2, 9, 14)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    quantized = ours(mine)
    z, tokens, loss = theirs(other, inv_temperature=10.0)
    total = sum(ours.loss_weights[name] * value for name, value in quantized.losses.items())
    assert torch.equal(quantized.tokens, tokens.long())
    torch.testing.assert_close(quantized.z, z)
    torch.testing.assert_close(total, loss, rtol=1e-4, atol=1e-5)
    outer = torch.randn_like(z)
    (first,) = torch.autograd.grad(total + (quantized.z * outer).sum(), mine)
    (second,) = torch.autograd.grad(loss + (z * outer).sum(), other)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_a_training_step_of_eighteen_bits_makes_no_table():
    quantizer = LookupFreeQuantizer(18, entropy=EntropyLoss(temperature=1.0)).train()
    assert not [*quantizer.parameters(), *quantizer.buffers()]
    x = torch.randn(2, 8, 8, 18, requires_grad=True)
    with largest_tensor() as seen:
        quantized = quantizer(x)
        (quantized.losses['entropy'] + quantized.z.sum()).backward()
    assert seen.bytes <= 2**18 * 4


@pytest.mark.parametrize(
    'settings',
    [
        dict(bits=0),
        dict(bits=63),
        dict(bits=4, bit_order='random'),
        dict(bits=4, entropy_group=0),
        dict(bits=4, entropy=EntropyLoss(target='argmax')),
        dict(bits=40, entropy=EntropyLoss(), entropy_group=None),
        dict(bits=40, entropy=EntropyLoss(floor='clamp'), entropy_group=4),
    ],
)
@pytest.mark.parametrize('kind', KINDS)
def test_bad_settings(kind, settings):
    with pytest.raises(ConfigError) as caught:
        kind(**settings)
    assert caught.value.hint
