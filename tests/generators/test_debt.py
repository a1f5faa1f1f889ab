"""The autoregressive energy transformer: what an energy depends on, its gradient, its descent, its drawing."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.generators.continuous.debt import DEBT, SIZES, debt_size
from vq.interfaces import Conditioned, TokenDrawing
from vq.sampling.guidance import constant
from vq.sampling.keyed import KeyedStreams


def model(**settings: Any) -> DEBT:
    torch.manual_seed(0)
    made = DEBT(3, (2, 3), dim=8, depth=2, heads=2, **settings)
    for parameter in made.network.parameters():  # modulations and the last layer start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, candidates (2, 6, 3) and conditions (2, 8)."""
    stream = torch.Generator().manual_seed(1)
    shapes = ((2, 6, 3), (2, 6, 3), (2, 8))
    x, y, c = (torch.randn(shape, generator=stream, dtype=torch.float64).to(dtype) for shape in shapes)
    return x, y, c


@pytest.mark.parametrize('place', [0, 2, 5])
def test_a_token_has_no_influence_on_predictions_up_to_its_own(place: int) -> None:
    made, (x, y, c) = model(step_size=0.1), inputs()
    other = x.clone()
    other[:, place] += 1
    found, changed = made.refined(x, y, c), made.refined(other, y, c)
    assert torch.equal(found[:, : place + 1], changed[:, : place + 1])
    assert place == 5 or not torch.isclose(found[:, place + 1 :], changed[:, place + 1 :]).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    """fp64, by each number of the candidates; an energy depends on its own candidate alone."""
    made, (x, y, c), step = model().double(), inputs(torch.float64), 1e-5
    inner = y.clone().requires_grad_()
    energies = made.network(x, inner, c)
    (gradient,) = torch.autograd.grad(energies.sum(), inner)
    for place, channel in ((0, 0), (3, 2), (5, 1)):
        moved = torch.zeros_like(y)
        moved[:, place, channel] = step
        with torch.no_grad():
            change = (made.network(x, y + moved, c) - made.network(x, y - moved, c)) / (2 * step)
        torch.testing.assert_close(change[:, place], gradient[:, place, channel], rtol=1e-6, atol=1e-8)
        assert not change[:, [other for other in range(6) if other != place]].any()


def test_second_derivatives_of_the_attention() -> None:
    made, (x, y, c) = model().double(), inputs(torch.float64)
    assert torch.autograd.gradgradcheck(
        lambda given: made.network(x[:1, :2], given, c[:1]), y[:1, :2].clone().requires_grad_(), fast_mode=True
    )


def test_three_inner_steps_lower_the_energy() -> None:
    made, (x, y, c) = model(steps=3, step_size=0.05), inputs()
    with torch.no_grad():
        assert (made.network(x, made.refined(x, y, c), c) < made.network(x, y, c)).all()


def test_cached_energies_are_those_of_one_pass() -> None:
    made, (x, y, c) = model(), inputs()
    with torch.no_grad():
        whole, cache = made.network(x, y, c), None
        for place in range(6):
            cache = made.network.extended(cache, x[:, max(place - 1, 0) : place], c)
            torch.testing.assert_close(made.network.energies(y[:, place : place + 1], c, cache)[:, 0], whole[:, place])


@pytest.mark.parametrize('scale', [1.0, 2.0])
def test_drawing_descends_from_the_tokens_before(scale: float) -> None:
    """Without guidance a drawn image is a fixed point of training's pass: its tokens are what it predicts of them."""
    made, (_, _, c) = model(step_size=0.1), inputs()
    streams = KeyedStreams(torch.tensor([4, 5]), ('draw', 1))
    drawing = TokenDrawing(None, functools.partial(constant, scale=scale))
    with torch.inference_mode():
        latents = made.generate(streams, Conditioned(c), Conditioned(torch.zeros_like(c)), drawing)
        alone = made.generate(KeyedStreams(streams.keys[1:], ('draw', 1)), Conditioned(c[1:]), Conditioned(c[1:] * 0), drawing)
    assert latents.shape == (2, 3, 2, 3)
    torch.testing.assert_close(alone[0], latents[1])
    x = made.layout.tokens(latents.clone())
    found = made.refined(x, streams.normals(6, 3, of='candidates'), c)
    assert torch.allclose(found, x, rtol=1e-4, atol=1e-5) == (scale == 1)


def test_given_tokens_stay() -> None:
    made, (x, _, c) = model(), inputs()
    keep = torch.tensor([[True, False, True], [False] * 3])
    streams = KeyedStreams(torch.tensor([4, 5]), ('draw', 1))
    drawing = TokenDrawing(None, constant)
    found = made.generate(streams, Conditioned(c), None, drawing, made.layout.latents(x), keep)
    assert torch.equal(found[:, :, keep], made.layout.latents(x)[:, :, keep])
    assert not torch.isclose(found[:, :, ~keep], made.layout.latents(x)[:, :, ~keep]).any()


def test_training_reaches_all_that_has_a_slope() -> None:
    made, (x, _, c) = model().train(), inputs()
    loss = made(made.layout.latents(x), Conditioned(c), KeyedStreams(torch.tensor([4, 5]), (0, 1)))['distance']
    loss.backward()
    assert {name for name, value in made.named_parameters() if value.grad is None} == {'network.final.linear.bias'}
    assert made.step_size.grad != 0 and not made.network.final.linear.bias.requires_grad


@pytest.mark.parametrize('name', SIZES)
def test_sizes_of_the_fork(name: str) -> None:
    wanted = {'2XS': (384, 6), 'B': (768, 24), 'L': (1024, 32), 'H': (1280, 40)}[name]
    with torch.device('meta'):
        made = DEBT(16, (16, 16), **debt_size(name))
    assert (made.dim, len(made.network.blocks)) == wanted and made.network.positions.shape == (257, wanted[0])


def test_errors() -> None:
    with pytest.raises(ConfigError, match="no size 'XL'"):
        debt_size('XL')
    with pytest.raises(ConfigError, match='steps is 0'):
        model(steps=0)
