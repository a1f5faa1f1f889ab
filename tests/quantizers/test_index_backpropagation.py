"""IBQ against the expression of its paper with the whole matrix, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.quantizers.measuring import largest_tensor
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.index_backpropagation import (
    IndexBackpropagationQuantizer,
    index_backpropagation,
    largest_product,
)


@pytest.mark.parametrize('budget', [1, 5000, None])
def test_codes_and_gradients(budget):
    torch.manual_seed(0)
    x, table = torch.randn(37, 5, requires_grad=True), torch.randn(29, 5, requires_grad=True)
    tokens = largest_product(x, table, budget)
    z = index_backpropagation(x, table, tokens, budget)
    x64, table64 = x.detach().double().requires_grad_(), table.detach().double().requires_grad_()
    p = torch.softmax(x64 @ table64.T, dim=1)
    one_hot = F.one_hot(p.argmax(1), 29) + p - p.detach()
    expected = one_hot @ table64
    assert torch.equal(tokens, p.argmax(1))
    assert torch.equal(z, table[tokens])
    outer = torch.randn(37, 5)
    for ours, theirs in zip(
        torch.autograd.grad((z * outer).sum(), [x, table]),
        torch.autograd.grad((expected * outer).sum(), [x64, table64]),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
        assert (ours != 0).all()  # every code has a gradient


def test_losses_of_the_quantizer():
    """All terms of the training loss, weighted as in the paper's code, and the gradients of their sum."""
    torch.manual_seed(1)
    quantizer = IndexBackpropagationQuantizer(17, 4, entropy=EntropyLoss(0.05, temperature=0.5)).train()
    x = torch.randn(3, 11, 4, requires_grad=True)
    quantized = quantizer(x)
    total = sum(quantizer.loss_weights[name] * value for name, value in quantized.losses.items())
    x64 = x.detach().double().requires_grad_()
    table = quantizer.codebook.weight.detach().double().requires_grad_()
    logits = x64 @ table.T
    p = torch.softmax(logits, dim=-1)
    hard = F.one_hot(logits.argmax(-1), 17).double()
    soft = torch.softmax(logits / 0.5, dim=-1)
    mean = soft.mean((0, 1))
    expected = (
        ((hard + p - p.detach()) @ table - x64).square().mean()
        + ((hard @ table).detach() - x64).square().mean()
        + 0.25 * (hard @ table - x64.detach()).square().mean()
        + 0.05 * (-(soft * soft.log()).sum(-1).mean() + (mean * torch.log(mean + 1e-5)).sum())
    )
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(total, [x, quantizer.codebook.weight])
    for mine, theirs in zip(ours, torch.autograd.grad(expected, [x64, table]), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-6)


def test_ties_go_to_the_lowest_index():
    table = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert largest_product(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), table).tolist() == [1, 0, 0]


def test_no_features():
    assert largest_product(torch.empty(0, 3), torch.randn(4, 3)).shape == (0,)


@pytest.mark.slow
def test_memory_is_the_budget_not_the_matrix():
    x, table = torch.randn(3000, 4, requires_grad=True), torch.randn(2000, 4, requires_grad=True)
    with largest_tensor() as seen:
        index_backpropagation(x, table, largest_product(x, table, 2**18), 2**18).sum().backward()
    assert 0 < seen.bytes <= 2**18
