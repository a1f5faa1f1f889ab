"""Entropy losses against the textbook expressions in float64, with autograd's gradients; and their memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.quantizers.measuring import largest_tensor
from vq.core import collectives
from vq.core.errors import ConfigError
from vq.quantizers.bit_assignment import mean_pattern
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.soft_assignment import soft_assignment
from vq.quantizers.vector import VectorQuantizer

TIGHT = 5000  # bytes: a few rows a tile


def textbook(affinity: Tensor, settings: EntropyLoss) -> Tensor:
    """affinity (N, K) -> the loss, with the whole matrix, in float64."""
    p = torch.softmax(affinity / settings.temperature, dim=1)
    target = p
    if settings.target == 'argmax':
        target = F.one_hot(p.argmax(1), p.shape[1]) + p - p.detach()
    mean = target.mean(0)
    if settings.floor == 'clamp':
        certainty, log_mean = -(p * p.clamp_min(1e-5).log()).sum(1).mean(), mean.clamp_min(1e-5).log()
    else:
        certainty, log_mean = -(target * p.log()).sum(1).mean(), torch.log(mean + 1e-5)
    return certainty + settings.diversity * (mean * log_mean).sum()


def sign_codes(bits: int) -> Tensor:
    return (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1).double() * 2 - 1


def assert_same_with_gradients(ours: Tensor, theirs: Tensor, inputs: list[tuple[Tensor, Tensor]]) -> None:
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-5, atol=2e-5)
    gradients = torch.autograd.grad(ours, [pair[0] for pair in inputs])
    for mine, expected in zip(gradients, torch.autograd.grad(theirs, [pair[1] for pair in inputs]), strict=True):
        torch.testing.assert_close(mine.double(), expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize('budget', [1, TIGHT, None])
@pytest.mark.parametrize('temperature', [0.05, 1.0, 30.0])
@pytest.mark.parametrize('kind', ['soft', 'argmax', 'clamp', 'products', 'offset'])
def test_against_the_whole_matrix(kind, temperature, budget):
    torch.manual_seed(0)
    settings = EntropyLoss(
        temperature=temperature,
        diversity=0.7,
        target='argmax' if kind == 'argmax' else 'soft',
        floor='clamp' if kind == 'clamp' else 'add',
    )
    shift = 50.0 if kind == 'offset' else 0.0  # a common offset changes no distance
    x, codes = (torch.randn(31, 3) + shift).requires_grad_(), (torch.randn(23, 3) + shift).requires_grad_()
    x64, codes64 = x.detach().double().requires_grad_(), codes.detach().double().requires_grad_()
    if kind == 'products':
        ours, affinity = settings.of_products(x, codes, budget), x64 @ codes64.T
    else:
        ours, affinity = settings.of_distances(x, codes, budget), -(x64[:, None] - codes64).square().sum(2)
    assert_same_with_gradients(ours, textbook(affinity, settings), [(x, x64), (codes, codes64)])


@pytest.mark.slow
@pytest.mark.parametrize('budget', [1, TIGHT, None])
@pytest.mark.parametrize('temperature', [0.05, 1.0, 30.0])
@pytest.mark.parametrize('floor', ['add', 'clamp'])
@pytest.mark.parametrize(('bits', 'length'), [(1, 1.0), (5, 1.0), (8, 8**-0.5)])
def test_signs_against_the_whole_matrix(bits, length, floor, temperature, budget):
    """Factorised over bits, without a table, against distances to all 2^d codes."""
    torch.manual_seed(bits)
    settings = EntropyLoss(temperature=temperature, floor=floor)
    x = torch.randn(33, bits, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    affinity = -(x64[:, None] - length * sign_codes(bits)).square().sum(2)
    ours = settings.of_signs(x, length, budget_bytes=budget)
    assert_same_with_gradients(ours, textbook(affinity, settings), [(x, x64)])


@pytest.mark.parametrize('group', [1, 3, 5, 8])
def test_entropy_over_groups_of_bits(group):
    """The sum over groups, each against its own small codebook; never less than the exact one of all bits together."""
    torch.manual_seed(0)
    settings = EntropyLoss(temperature=2.0)
    x = torch.randn(40, 8, dtype=torch.float64)
    certainty = EntropyLoss(temperature=2.0, diversity=0).of_signs(x, 1.0)
    expected = torch.zeros((), dtype=torch.float64)
    for part in x.split(group, dim=1):
        p = torch.softmax(-(part[:, None] - sign_codes(part.shape[1])).square().sum(2) / 2.0, dim=1)
        expected -= (p.mean(0) * torch.log(p.mean(0) + 1e-5)).sum()
    bound = certainty - settings.of_signs(x, 1.0, group)
    torch.testing.assert_close(bound, expected)
    assert bound >= certainty - settings.of_signs(x, 1.0) - 1e-2  # up to the 1e-5 in logarithms


def test_mean_pattern_is_in_the_order_it_says():
    logits = torch.tensor([[30.0, -30.0, 30.0], [-30.0, -30.0, 30.0]])
    assert mean_pattern(logits).round(decimals=3).tolist() == [0, 0.5, 0, 0, 0, 0.5, 0, 0]


def test_extremes():
    """One code for all features: the loss is 0. All codes equally likely: -log K."""
    settings = EntropyLoss(temperature=0.01)
    codes = torch.eye(8) * 10
    torch.testing.assert_close(settings.of_distances(codes[:1].expand(50, 8), codes), torch.tensor(0.0), atol=2e-5, rtol=0)
    torch.testing.assert_close(settings.of_distances(codes, codes), -torch.tensor(8.0).log(), atol=1e-4, rtol=0)
    assert settings.of_signs(torch.full((3, 5), 1e4), 1.0).isfinite()


@pytest.mark.slow
@pytest.mark.parametrize('budget', [2**16, 2**20])
def test_memory_is_the_budget_not_the_matrix(budget):
    """The largest output of any operation, forward and backward."""
    rows = torch.randn(3000, 4, requires_grad=True)
    codes = torch.randn(2000, 4, requires_grad=True)
    with largest_tensor() as seen:
        entropy, assignment = soft_assignment(rows, codes, budget_bytes=budget)
        (entropy + assignment.square().sum()).backward()
    assert 0 < seen.bytes <= max(budget, rows.nbytes)


def test_eighteen_bits_without_a_table():
    """2^18 codes: their table, and 500 features against them, would be 19 and 524 MB."""
    x = torch.randn(500, 18, requires_grad=True)
    with largest_tensor() as seen:
        EntropyLoss(temperature=1.0).of_signs(x, 1.0, budget_bytes=2**20).backward()
    assert seen.bytes <= 2**18 * 4
    assert x.grad.isfinite().all() and (x.grad != 0).all()


def test_what_is_kept_for_backward():
    saved = []
    rows, codes = torch.randn(3000, 4, requires_grad=True), torch.randn(2000, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.nbytes), lambda index: index):
        EntropyLoss().of_distances(rows, codes, budget_bytes=2**20)
    assert sum(saved) < 20 * (rows.nbytes + codes.nbytes)


class TwoAlike:
    """A back end with a second rank whose assignments are given."""

    rank, size = 0, 2

    def __init__(self, other: Tensor) -> None:
        self.other = other

    def all_reduce(self, value: Tensor, operation: str) -> Tensor:
        return value + self.other


def test_synchronized_is_the_loss_of_the_whole_batch():
    """Averaged over ranks, value and gradients of the diversity term are those of one process with all features."""
    torch.manual_seed(0)
    x, codes = torch.randn(40, 3), torch.randn(9, 3, requires_grad=True)
    settings = EntropyLoss(temperature=1.0, synchronized=True)
    alone = EntropyLoss(temperature=1.0).of_distances(x, codes)
    (expected,) = torch.autograd.grad(alone, codes)
    shares = x.chunk(2)
    assignments = [torch.softmax(-(part[:, None] - codes).square().sum(2), 1).mean(0).detach() for part in shares]
    values, gradients = [], []
    for part, other in zip(shares, reversed(assignments), strict=True):
        collectives.install(TwoAlike(other))
        try:
            values.append(settings.of_distances(part, codes))
        finally:
            collectives.install(None)
        gradients.append(torch.autograd.grad(values[-1], codes)[0])
    torch.testing.assert_close(sum(values) / 2, alone)
    torch.testing.assert_close(sum(gradients) / 2, expected)


def test_entropy_is_a_loss_of_training_only():
    quantizer = VectorQuantizer(7, 3, entropy=EntropyLoss(weight=0.3))
    assert quantizer.loss_weights['entropy'] == 0.3
    features = torch.randn(20, 3)
    assert set(quantizer.train()(features).losses) == {'codebook', 'commitment', 'entropy'}
    assert set(quantizer.eval()(features).losses) == {'codebook', 'commitment'}


@pytest.mark.parametrize(
    'settings', [dict(temperature=0.0), dict(target='hard'), dict(floor='none'), dict(target='argmax', floor='clamp')]
)
def test_bad_settings(settings):
    with pytest.raises(ConfigError) as caught:
        EntropyLoss(**settings)
    assert caught.value.hint
