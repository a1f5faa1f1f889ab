"""Written second derivatives: those of torch, and of finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vq.nn import twice
from vq.nn.second_order import second_order

Function = Callable[..., Tensor]
EPS = 1e-5
# name: ours, torch's, shapes of what is given
FORMS: dict[str, tuple[Function, Function, tuple[tuple[int, ...], ...]]] = {
    'attention': (twice.attention, F.scaled_dot_product_attention, ((2, 2, 3, 4),) * 3),
    'gelu': (twice.gelu, lambda x: F.gelu(x, approximate='tanh'), ((3, 7),)),
    'layer norm': (lambda x: twice.LayerNorm(5, EPS)(x), lambda x: F.layer_norm(x, (5,), eps=EPS), ((2, 3, 5),)),
}


def given(name: str) -> list[Tensor]:
    stream = torch.Generator().manual_seed(0)
    found = [torch.randn(*shape, generator=stream, dtype=torch.float64) * 1.5 for shape in FORMS[name][2]]
    return [value.requires_grad_() for value in found]


@pytest.mark.slow
@pytest.mark.parametrize('name', FORMS)
def test_first_and_second_derivatives_are_finite_differences(name: str) -> None:
    with second_order():
        assert torch.autograd.gradcheck(FORMS[name][0], given(name))
        assert torch.autograd.gradgradcheck(FORMS[name][0], given(name))


@pytest.mark.parametrize('name', FORMS)
def test_value_gradient_and_its_gradient_are_those_of_torch(name: str) -> None:
    """The error of a gradient, as energies learn it: its derivative goes by the gradient, and by what that was taken at."""

    def derived(form: Function) -> list[Tensor]:
        values = given(name)
        y = form(*values)
        gradients = torch.autograd.grad(y.pow(3).sum(), values, create_graph=True)
        error = sum((gradient - 1).square().sum() for gradient in gradients)
        assert isinstance(error, Tensor)
        return [y, *gradients, *torch.autograd.grad(error, values)]

    with sdpa_kernel(SDPBackend.MATH):
        expected = derived(FORMS[name][1])
    with second_order():
        found = derived(FORMS[name][0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('name', FORMS)
def test_they_act_where_second_derivatives_are_taken_and_nowhere_else(name: str) -> None:
    def is_written(*values: Tensor) -> bool:
        return 'View' in (kind := type(FORMS[name][0](*values).grad_fn).__name__) or kind.startswith('_')

    values = given(name)
    assert not is_written(*values)
    with second_order():
        assert is_written(*values)
        assert FORMS[name][0](*(value.detach() for value in values)).grad_fn is None
        with torch.autocast('cpu', torch.bfloat16):
            assert not twice.applies(*(value.float() for value in values))
        assert not twice.applies(*(value.to('meta') for value in values))


def test_the_bend_of_gelu_is_the_second_derivative_far_out_too() -> None:
    x = torch.linspace(-12, 12, 193, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F.gelu(x, approximate='tanh').sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(twice.gelu_bend(x.detach()), bend, rtol=1e-9, atol=1e-12)
