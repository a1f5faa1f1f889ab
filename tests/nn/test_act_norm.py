"""Activation norm: initialization by the first batch, on one rank and on two, and its state dict."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import UserError
from vq.nn.act_norm import ActNorm

CHANNELS, ROWS = 3, (2, 5)


def batch(seed: int, rows: int = sum(ROWS)) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.1, 1.0, 20.0]).view(1, -1, 1, 1)
    return torch.randn(rows, CHANNELS, 3, 5, generator=stream) * scale + torch.tensor([5.0, -1.0, 0.0]).view(1, -1, 1, 1)


def expected_start(x: Tensor) -> tuple[Tensor, Tensor]:
    """loc and scale, (1, C, 1, 1), in float64."""
    rows = x.double().transpose(0, 1).reshape(CHANNELS, -1)
    return -rows.mean(1).view(1, -1, 1, 1), 1 / (rows.std(1).view(1, -1, 1, 1) + 1e-6)


def test_first_batch_sets_loc_and_scale_and_later_ones_do_not():
    norm, x = ActNorm(CHANNELS), batch(1)
    loc, scale = expected_start(x)
    torch.testing.assert_close(norm(x).double(), scale * (x.double() + loc), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.loc.double(), loc, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.scale.double(), scale, rtol=1e-5, atol=1e-6)
    assert norm.initialized == 1
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    norm(batch(2) * 7)
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)


def test_identity_until_the_first_training_batch():
    norm, x = ActNorm(CHANNELS).eval(), batch(3)
    assert torch.equal(norm(x), x) and norm.initialized == 0


def test_gradients_go_through_the_batch_that_starts_it():
    """Statistics are constants: the gradients are those of y = scale (x + loc)."""
    norm, x = ActNorm(CHANNELS), batch(4).requires_grad_()
    norm(x).square().sum().backward()
    y = norm(x).detach()
    torch.testing.assert_close(x.grad, 2 * y * norm.scale.detach())
    torch.testing.assert_close(norm.scale.grad, (2 * y * (x.detach() + norm.loc.detach())).sum((0, 2, 3), keepdim=True))


def rank_start() -> dict[str, Tensor]:
    norm = ActNorm(CHANNELS)
    norm(batch(5).split(ROWS)[collectives.rank()])
    return norm.state_dict()


@pytest.mark.slow
def test_two_ranks_start_with_the_bits_of_the_joined_batch(gloo_pool):
    first, second = gloo_pool.run(rank_start)
    loc, scale = expected_start(batch(5))
    torch.testing.assert_close(first['loc'].double(), loc, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first['scale'].double(), scale, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_state_dict_says_whether_it_has_started():
    started, fresh = ActNorm(CHANNELS), ActNorm(CHANNELS)
    started(batch(6))
    other = ActNorm(CHANNELS)
    other.load_state_dict(started.state_dict())
    other(batch(7))
    torch.testing.assert_close(other.state_dict(), started.state_dict(), rtol=0, atol=0)
    started.load_state_dict(fresh.state_dict())  # back to the beginning
    started(batch(7))
    torch.testing.assert_close(started.loc.double(), expected_start(batch(7))[0], rtol=1e-5, atol=1e-6)


def test_no_step_reads_the_device(monkeypatch):
    norm = ActNorm(CHANNELS)

    def refuse(self):
        raise AssertionError('a tensor was read')

    monkeypatch.setattr(Tensor, '__bool__', refuse)
    monkeypatch.setattr(Tensor, 'item', refuse)
    norm(batch(8)), norm(batch(9)), norm.eval()(batch(8))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_bad_first_batch_leaves_the_identity(bad):
    norm, x = ActNorm(CHANNELS), batch(10)
    x[0, 1, 2, 3] = bad
    norm(x)
    assert torch.equal(norm.loc, torch.zeros(1, CHANNELS, 1, 1)) and torch.equal(norm.scale, torch.ones(1, CHANNELS, 1, 1))
    assert torch.equal(norm(batch(11)), batch(11))


def test_one_value_per_channel_is_refused():
    with pytest.raises(UserError, match='one value per channel'):
        ActNorm(CHANNELS)(torch.randn(1, CHANNELS, 1, 1))


def test_bf16_input_and_late_memory():
    with torch.device('meta'):
        norm = ActNorm(CHANNELS)
    norm.to_empty(device='cpu')
    norm.reset_parameters()
    x = batch(12).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        y = norm(x)
    loc, scale = expected_start(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(norm.loc.double(), loc, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.scale.double(), scale, rtol=1e-5, atol=1e-6)
