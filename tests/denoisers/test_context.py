"""Tokens of the condition before those of the image (JiT), against the formula written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.denoisers.test_dit import awake
from vq.core.errors import ConfigError
from vq.denoisers.dit import DiT
from vq.interfaces import Conditioned

SHAPE = dict(channels=2, cells=(4, 6), dim=16, depth=2, heads=2, patch=2, timesteps=None)
MODERN = dict(positions='rope', norm='rms', mlp='swiglu', qk_norm=True)
COUNT = 3


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def turned(x: Tensor) -> Tensor:
    """(B, COUNT + 6, heads, 8): the image's tokens turn by row and by column, as complex numbers; the others stay."""
    speeds = 10000.0 ** -(torch.arange(2) / 2)
    rows, columns = torch.arange(6) // 3, torch.arange(6) % 3
    angles = torch.cat([rows[:, None] * speeds, columns[:, None] * speeds], 1)  # (6, 4)
    pairs = torch.view_as_complex(x[:, COUNT:].reshape(*x[:, COUNT:].shape[:-1], 4, 2).contiguous())
    moved = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(-2)
    return torch.cat([x[:, :COUNT], moved], 1)


def test_they_join_the_sequence_at_their_block_and_are_not_rotated() -> None:
    torch.manual_seed(0)
    model: DiT = awake(DiT(**SHAPE, **MODERN, context=COUNT, context_from=1))  # type: ignore[arg-type, assignment]
    z, t, vector = torch.randn(2, 2, 4, 6), torch.rand(2), torch.randn(2, 16)
    assert model.context is not None
    c = F.silu(model.time(t) + vector)[:, None]
    x = model.blocks[0](model.patches(z), c)
    x = torch.cat([model.context + vector[:, None], x], 1)
    block = model.blocks[1]
    shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(c).chunk(6, -1)
    normed = rms(x, block.norm1.weight) * (1 + scale1) + shift1
    q, k, v = block.attention.qkv(normed).view(2, COUNT + 6, 3, 2, 8).unbind(2)
    q, k = turned(rms(q, block.attention.q_norm.weight)), turned(rms(k, block.attention.k_norm.weight))
    weights = torch.einsum('bqhd,bkhd->bhqk', q, k).div(8**0.5).softmax(-1)
    x = x + gate1 * block.attention.proj(torch.einsum('bhqk,bkhd->bqhd', weights, v).flatten(2))
    gate, up = block.mlp.into(rms(x, block.norm2.weight) * (1 + scale2) + shift2).chunk(2, -1)
    x = (x + gate2 * block.mlp.out(F.silu(gate) * up))[:, COUNT:]
    shift, scale = model.final.modulation(c).chunk(2, -1)
    tokens = model.final.linear(rms(x, model.final.norm.weight) * (1 + scale) + shift)
    expected = tokens.view(2, 2, 3, 2, 2, 2).permute(0, 5, 1, 3, 2, 4).reshape(2, 2, 4, 6)
    torch.testing.assert_close(model(z, t, Conditioned(vector)).value, expected)


def test_they_alone_carry_the_condition() -> None:
    """Without modulation by the condition the images still depend on it; without tokens they do not."""
    torch.manual_seed(0)
    z, t = torch.randn(2, 2, 4, 6), torch.rand(2)
    for context in (0, COUNT):
        model = awake(DiT(**SHAPE, context=context))  # type: ignore[arg-type]
        for block in (*model.blocks, model.final):  # type: ignore[misc]
            block.modulation.weight.data.zero_()  # type: ignore[union-attr]
        first, second = (model(z, t, Conditioned(torch.full((2, 16), value))).value for value in (0.0, 1.0))
        assert torch.equal(first, second) == (context == 0)
    assert model(z, t).value.shape == z.shape  # no condition: the learned tokens alone


def test_where_they_join() -> None:
    assert [DiT(**{**SHAPE, 'depth': depth}).context_from for depth in (12, 24, 32)] == [4, 8, 10]  # type: ignore[arg-type]
    plain, with_tokens = DiT(**SHAPE), DiT(**SHAPE, context=COUNT)  # type: ignore[arg-type]
    assert set(with_tokens.state_dict()) - set(plain.state_dict()) == {'context'}
    assert plain.published and not with_tokens.published
    for wrong in (dict(context=6), dict(context=-1), dict(context=1, context_from=2)):
        with pytest.raises(ConfigError, match='with 6 tokens of the image and 2 blocks'):
            DiT(**SHAPE, **wrong)  # type: ignore[arg-type]
