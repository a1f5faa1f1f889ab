"""The diffusion transformer: shapes, its start at zero, gradients, precision, sizes, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from vq.conditioners.classes import ClassConditioner
from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.denoisers.dit import DiT, dit_size
from vq.denoisers.wide_head import WideHeadDiT
from vq.interfaces import Conditioned
from vq.nn.packed import PackedLinear
from vq.tasks.diffusion.network import Conditional

MODERN = dict(positions='rope', norm='rms', mlp='swiglu', qk_norm=True, timesteps=None, time='fourier', kind='velocity')
CASES = {
    'patch_1_odd': dict(channels=3, cells=(5, 7), patch=1),
    'patch_2_wide': dict(channels=4, cells=(4, 10), patch=2, learned_variance=True),
    'patch_4': dict(channels=2, cells=(8, 4), patch=4),
    'patch_8': dict(channels=1, cells=(16, 8), patch=8),
    'modern': dict(channels=3, cells=(3, 5), patch=1, **MODERN),
    'both_positions': dict(channels=2, cells=(4, 6), positions='both', qk_norm=True, mlp='swiglu'),
    'pixels': dict(channels=3, cells=(16, 32), patch=16, bottleneck=5, kind='x0', timesteps=None),
}


def make(name: str, **settings) -> DiT:
    torch.manual_seed(0)
    return DiT(**{'dim': 16, 'depth': 2, 'heads': 2, **CASES[name], **settings})


def inputs(model: DiT, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor, Conditioned]:
    stream = torch.Generator().manual_seed(1)
    z, vector = torch.randn(rows, model.channels, *model.cells, generator=stream), torch.randn(rows, 16, generator=stream)
    return z, torch.rand(rows, generator=stream), Conditioned(vector)


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """With weights where the start has zeros, so that every part counts."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize('name', CASES)
def test_starts_at_zero_and_every_parameter_learns(name):
    model = make(name)
    z, t, condition = inputs(model)
    found = model(z, t, condition)
    assert found.value.shape == z.shape and found.kind == model.kind and not found.value.any()
    assert (found.variance is not None) == model.learned_variance
    awake(model)
    found = model(z, t, condition)
    outputs = [found.value] if found.variance is None else [found.value, found.variance]
    assert all(output.shape == z.shape for output in outputs)
    sum(output.square().sum() for output in outputs).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize('name', ['patch_2_wide', 'modern'])
def test_low_precision_and_recomputed_blocks(name):
    model = awake(make(name)).train()
    z, t, condition = inputs(model)

    def step() -> tuple[torch.Tensor, list[torch.Tensor]]:
        value = model(z, t, condition).value
        return value, list(torch.autograd.grad(value.square().sum(), list(model.parameters())))

    value, gradients = step()
    for block in model.blocks:
        block.recompute = True
    again, same = step()
    assert torch.equal(value, again) and all(map(torch.equal, gradients, same))
    with torch.autocast('cpu', torch.bfloat16):
        low, _ = step()
    assert (low.float() - value).norm() < 0.05 * value.norm()


def test_time_and_condition_and_places_count():
    model = awake(make('patch_1_odd'))
    z, t, condition = inputs(model)
    value = model(z, t, condition).value
    assert not torch.equal(value, model(z, t.flip(0), condition).value)
    assert not torch.equal(value, model(z, t, Conditioned(condition.vector.flip(0))).value)
    assert not torch.equal(value, model(z, t).value)
    flipped = model(z.flip(-1), t, condition).value.flip(-1)  # without positions attention would not notice
    assert not torch.allclose(value, flipped, atol=1e-3)
    torch.testing.assert_close(model(z[:1], t[:1], Conditioned(condition.vector[:1])).value, value[:1])


def test_indices_of_steps_are_exact_in_single_precision():
    time = make('patch_1_odd').time
    for steps in (1000, 999, 50, 4000):
        time.steps = steps
        t = torch.arange(1, steps + 1, dtype=torch.float32) / steps
        assert torch.equal(time.number(t), torch.arange(steps).float())
    time.steps = 1000
    assert time.number(torch.tensor([0.1004])).item() == pytest.approx(99.4, abs=1e-3)  # between steps: not rounded
    time.steps = None
    assert torch.equal(time.number(t), t)


def test_comes_back_from_the_meta_device():
    with torch.device('meta'):
        far = make('both_positions')
    near = make('both_positions')
    assert {name: value.shape for name, value in far.state_dict().items()} == {
        name: value.shape for name, value in near.state_dict().items()
    }
    far.to_empty(device='cpu').load_state_dict(near.state_dict())
    with torch.no_grad():
        assert torch.equal(awake(near)(*inputs(near)).value, near(*inputs(near)).value)
        far.load_state_dict(near.state_dict())
        assert torch.equal(far(*inputs(far)).value, near(*inputs(near)).value)
    assert torch.equal(near.bfloat16().positions.table, far.positions.table)  # tables stay fp32


@pytest.mark.parametrize(('size', 'millions'), [('S', 32.6), ('B', 130.0), ('L', 457.0), ('XL', 674.0)])
def test_published_sizes(size, millions):
    """Parameters without the class table and the fixed positions, as in the paper's table (33, 130, 458, 675 with them)."""
    with torch.device('meta'):
        model = DiT(4, (32, 32), **dit_size(size), learned_variance=True)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(cells=(5, 4)), 'do not divide into patches of 2'),
        (dict(cells=(4,)), 'two axes'),
        (dict(heads=3), '16 channels with 3 heads'),
        (dict(heads=8, positions='rope'), 'multiple of 4'),
        (dict(dim=18, heads=2), 'multiple of 4'),
        (dict(depth=0), 'depth is 0'),
        (dict(timesteps=0), '0 timesteps'),
        (dict(positions='learned'), "positions is 'learned'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        DiT(**{'channels': 2, 'cells': (4, 4), 'dim': 16, 'depth': 1, 'heads': 2, **settings})


def test_conditions_of_another_form():
    model = make('patch_1_odd')
    z, t, _ = inputs(model)
    with pytest.raises(ConfigError, match='gives none'):
        model(z, t, Conditioned(sequence=torch.zeros(2, 3, 16)))
    with pytest.raises(ConfigError, match='one of 8 channels'):
        model(z, t, Conditioned(torch.zeros(2, 8)))
    with pytest.raises(ConfigError, match="no size 'XXL'"):
        dit_size('XXL')


@pytest.mark.parametrize('name', ['patch_2_wide', 'modern', 'wide_head'])
@torch.no_grad()
def test_drawing_packs_the_network_and_conditions_once(name, monkeypatch):
    """The network of a drawing gives what the trained one gives; the classes become vectors once for all steps."""
    monkeypatch.setattr('vq.nn.packed.PAYS', 0)
    torch.manual_seed(0)
    shape = dict(channels=3, cells=(4, 6), dim=16, depth=1, heads=2)
    denoiser = WideHeadDiT(**shape, head_dim=24, head_depth=1, head_heads=2) if name == 'wide_head' else make(name)
    awake(denoiser)
    conditioner = ClassConditioner(5, 16, std=1.0)
    root = Conditional(denoiser, conditioner).eval()
    calls = []
    conditioner.register_forward_hook(lambda *call: calls.append(call))
    drawn, condition = root.for_drawing(), Condition(torch.tensor([3, 0]))
    z = torch.randn(2, denoiser.channels, *denoiser.cells)
    assert any(isinstance(module, PackedLinear) for module in drawn.modules())
    for step in (0.9, 0.4):
        t = torch.full((2,), step)
        found, expected = (network(z, t, condition)[0] for network in (drawn, root))
        torch.testing.assert_close(found.value, expected.value, rtol=1e-5, atol=1e-5 * expected.value.abs().max().item())
    assert len(calls) == 3, 'once for the drawing, twice for the root'
    other = drawn(z, t, Condition(torch.tensor([3, 4])))[0].value
    torch.testing.assert_close(other[0], found.value[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other[1], found.value[1], rtol=1e-2), 'another condition is another one'
