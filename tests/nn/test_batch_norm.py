"""Batch norm against ``nn.BatchNorm2d``: in one process, and over two ranks against one with the joined batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.errors import UserError
from vq.nn.batch_norm import BatchNorm, join_moments

CHANNELS = 3
ROWS = (2, 5)  # images of either rank


class Twin:
    """A back end with a second rank that does exactly the same; counts its calls."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.calls: list[str] = []

    def all_gather(self, value: Tensor) -> list[Tensor]:
        self.calls.append('gather')
        return [value.detach(), value.detach()]

    def all_reduce(self, value: Tensor, operation: str) -> Tensor:
        assert operation == 'sum'
        self.calls.append('reduce')
        return 2 * value.detach()


@pytest.fixture
def twin():
    collectives.install(Twin())
    yield collectives._installed
    collectives.install(None)


def filled(norm: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Parameters and buffers that are neither 0 nor 1, the same for every norm."""
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            getattr(norm, name).copy_(torch.rand(CHANNELS, generator=stream) + 0.5)
    return norm.to(dtype)


def batch(rows: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(rows, C, 3, 7), with a different mean and variance for each image."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, CHANNELS, 3, 7, generator=stream)
    return (x * torch.rand(rows, CHANNELS, 1, 1, generator=stream) * 3 + 2 * torch.rand(rows, 1, 1, 1, generator=stream)).to(
        dtype
    )


def buffers(norm: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in norm.named_buffers()}


def results(norm: nn.Module, xs: list[Tensor], second_order: bool = True) -> list[Tensor]:
    """Outputs of two training batches, gradients at inputs and parameters, of a loss and of a gradient's size."""
    found = []
    for x in xs:
        x = x.detach().requires_grad_()
        wanted = [x, norm.weight, norm.bias]
        y = norm(x)
        loss = (y.square() * torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype)).sum()
        found += [y, *torch.autograd.grad(loss, wanted, create_graph=True)]
        if second_order:
            found += torch.autograd.grad(found[-3].pow(3).sum(), wanted[:2])
    return [value.detach() for value in found]


@pytest.mark.parametrize('synchronized', [False, True])
def test_one_process_is_torchs_batch_norm(synchronized):
    ours, peer = filled(BatchNorm(CHANNELS, synchronized=synchronized)), filled(nn.BatchNorm2d(CHANNELS))
    assert ours.state_dict().keys() == peer.state_dict().keys()
    for found, expected in zip(
        results(ours, [batch(2, 2), batch(5, 3)]), results(peer, [batch(2, 2), batch(5, 3)]), strict=True
    ):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(buffers(ours), buffers(peer))
    ours.eval(), peer.eval()
    for found, expected in zip(results(ours, [batch(3, 4)]), results(peer, [batch(3, 4)]), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(buffers(ours), buffers(peer))


def rank_results(dtype: torch.dtype) -> dict[str, Any]:
    norm = filled(BatchNorm(CHANNELS, synchronized=True), dtype)
    first, second = (batch(sum(ROWS), seed, dtype).split(ROWS)[collectives.rank()] for seed in (5, 6))
    return {'results': results(norm, [first, second]), 'buffers': buffers(norm)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('dtype', 'close'), [(torch.float64, dict(rtol=1e-9, atol=1e-10)), (torch.float32, dict(rtol=1e-3, atol=2e-4))]
)
def test_two_ranks_are_one_with_the_joined_batch(gloo_pool, dtype, close):
    """Unequal shares, two orders of gradients. Each rank has its share of parameter gradients, which DDP sums."""
    ranks = gloo_pool.run(rank_results, dtype)
    peer = filled(nn.BatchNorm2d(CHANNELS), dtype)
    expected = results(peer, [batch(sum(ROWS), seed, dtype) for seed in (5, 6)])
    for index, whole in enumerate(expected):
        parts = [rank['results'][index] for rank in ranks]
        torch.testing.assert_close(torch.cat(parts) if whole.dim() == 4 else sum(parts), whole, **close)
    for key, value in buffers(peer).items():
        torch.testing.assert_close(ranks[0]['buffers'][key], value, **close)
        assert torch.equal(ranks[0]['buffers'][key], ranks[1]['buffers'][key])


def rank_moments(shift: float) -> tuple[Tensor, Tensor]:
    x = far_batch(shift).split(ROWS)[collectives.rank()]
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    return join_moments(mean, variance, x.numel() // CHANNELS)[:2]


def far_batch(shift: float) -> Tensor:
    return batch(sum(ROWS), 7) * 0.01 + shift


@pytest.mark.slow
def test_joined_variance_does_not_cancel(gloo_pool):
    """A deviation of 0.01 around 1000: in fp32, squares of about a million have no digits left for it."""
    x = far_batch(1000.0)
    expected = x.double().var((0, 2, 3), correction=0)
    naive = x.square().mean((0, 2, 3)) - x.mean((0, 2, 3)).square()
    assert ((naive - expected).abs() > 0.5 * expected).any()  # the test would detect it
    for mean, variance in gloo_pool.run(rank_moments, 1000.0):
        torch.testing.assert_close(variance.double(), expected, rtol=2e-2, atol=0)
        torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)


def rank_lonely() -> tuple[Tensor, Tensor]:
    norm = filled(BatchNorm(CHANNELS, synchronized=True), torch.float64)
    x = batch(2, 8, torch.float64)[collectives.rank(), :, :1, :1][None].requires_grad_()
    y = norm(x)
    (gradient,) = torch.autograd.grad(y.pow(3).sum(), x)
    return y.detach(), gradient


@pytest.mark.slow
def test_one_value_per_channel_is_enough_beside_another_rank(gloo_pool):
    peer = filled(nn.BatchNorm2d(CHANNELS), torch.float64)
    x = batch(2, 8, torch.float64)[:, :, :1, :1].requires_grad_()
    y = peer(x)
    (gradient,) = torch.autograd.grad(y.pow(3).sum(), x)
    ranks = gloo_pool.run(rank_lonely)
    torch.testing.assert_close(torch.cat([found for found, _ in ranks]), y.detach())
    torch.testing.assert_close(torch.cat([found for _, found in ranks]), gradient, rtol=1e-6, atol=1e-7)


def test_one_value_per_channel_alone_is_refused():
    with pytest.raises(UserError, match='one value per channel'):
        BatchNorm(CHANNELS)(torch.randn(1, CHANNELS, 1, 1))


@pytest.mark.slow
def test_gradients_of_both_orders_by_finite_differences(twin):
    norm = filled(BatchNorm(CHANNELS, synchronized=True), torch.float64)
    x = batch(2, 9, torch.float64)[..., :2, :2].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradgradcheck(norm, x)


def test_one_collective_per_pass_and_none_in_eval(twin):
    norm = BatchNorm(CHANNELS, synchronized=True)
    x = batch(2, 10).requires_grad_()
    y = norm(x)
    assert twin.calls == ['gather']
    y.square().sum().backward()
    assert twin.calls == ['gather', 'reduce']
    norm.eval()(x).sum().backward()
    BatchNorm(CHANNELS)(x).sum().backward()
    assert twin.calls == ['gather', 'reduce']


@pytest.mark.parametrize('synchronized', [False, True])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 3e38])
def test_bad_batch_is_not_remembered(twin, synchronized, bad):
    norm = filled(BatchNorm(CHANNELS, synchronized=synchronized))
    norm(batch(2, 11))
    before, x = buffers(norm), batch(3, 12)
    x[1, 2, 0, 3] = bad  # 3e38 is finite, but its square is not
    assert not norm(x).isfinite().all() or bad == 3e38
    torch.testing.assert_close(buffers(norm), before, rtol=0, atol=0)
    norm(batch(2, 13))
    assert norm.num_batches_tracked == 2
    assert not torch.equal(norm.running_mean, before['running_mean'])


@pytest.mark.parametrize('synchronized', [False, True])
def test_no_step_reads_the_device(twin, synchronized, monkeypatch):
    def refuse(self):
        raise AssertionError('a tensor was read')

    for name in ('__bool__', '__float__', '__int__', 'item', 'tolist'):
        monkeypatch.setattr(Tensor, name, refuse)
    norm, x = BatchNorm(CHANNELS, synchronized=synchronized), batch(2, 18).requires_grad_()
    norm(x).sum().backward()
    norm.eval()(x).sum().backward()


@pytest.mark.parametrize('synchronized', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_bf16_input_has_fp32_statistics(twin, synchronized, memory_format):
    norm, exact = (filled(BatchNorm(CHANNELS, synchronized=synchronized)) for _ in range(2))
    x = (batch(5, 14) * 0.1 + 3).bfloat16().to(memory_format=memory_format)
    with torch.autocast('cpu', torch.bfloat16):
        y = norm(x)
    expected = exact(x.float())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(buffers(norm), buffers(exact), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1e-2)


def test_eval_pass_may_be_walked_back_after_training_went_on():
    """A penalty computed in eval mode, then a training batch, then one backward for both."""
    norm, untouched = filled(BatchNorm(CHANNELS)), filled(BatchNorm(CHANNELS))
    x = batch(2, 15).requires_grad_()
    (expected,) = torch.autograd.grad(untouched.eval()(x).square().sum(), x)
    y = norm.eval()(x)
    norm.train()(batch(2, 16))
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(gradient, expected)


def test_state_round_trip_and_late_memory():
    norm, peer = filled(BatchNorm(CHANNELS)), nn.BatchNorm2d(CHANNELS)
    norm(batch(2, 17))
    peer.load_state_dict(norm.state_dict())
    back = BatchNorm(CHANNELS)
    back.load_state_dict(peer.state_dict())
    torch.testing.assert_close(back.state_dict(), norm.state_dict(), rtol=0, atol=0)
    with torch.device('meta'):
        late = BatchNorm(CHANNELS)
        assert late(torch.empty(2, CHANNELS, 4, 4)).is_meta
    late.to_empty(device='cpu')
    late.reset_parameters()
    torch.testing.assert_close(late.state_dict(), nn.BatchNorm2d(CHANNELS).state_dict(), rtol=0, atol=0)
    assert copy.deepcopy(late).state_dict().keys() == late.state_dict().keys()
