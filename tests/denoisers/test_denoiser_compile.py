"""torch.compile compiles denoisers without graph breaks, to the same outputs and gradients."""

from __future__ import annotations

import pytest
import torch

from vq.denoisers.dit import DiT
from vq.denoisers.wide_head import WideHeadDiT
from vq.interfaces import Conditioned, Denoiser

SMALL = dict(channels=3, cells=(4, 6), dim=16, depth=2, heads=2)
MODERN = dict(positions='both', norm='rms', mlp='swiglu', qk_norm=True, time='fourier', bottleneck=4)


def make(kind: str) -> Denoiser:
    torch.manual_seed(0)
    if kind == 'wide_head':
        model: Denoiser = WideHeadDiT(**SMALL, head_dim=24, head_depth=1, head_heads=2)
    else:
        model = DiT(**SMALL, learned_variance=True) if kind == 'published' else DiT(**SMALL, **MODERN)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'backend', 'recompute'),
    [('published', 'inductor', False), ('modern', 'aot_eager', True), ('wide_head', 'aot_eager', False)],
)
def test_one_graph_and_equal_steps(kind, backend, recompute):
    torch.compiler.reset()
    plain, twin = make(kind).train(), make(kind).train()
    for block in twin.blocks:
        block.recompute = recompute
    compiled = torch.compile(twin, backend=backend, fullgraph=True, dynamic=False)
    for seed in range(2):
        stream = torch.Generator().manual_seed(seed)
        z, t, vector = (torch.randn(2, *shape, generator=stream) for shape in ((3, 4, 6), (), (16,)))
        t = t.sigmoid()
        ours, theirs = (model(z, t, Conditioned(vector)).value for model in (compiled, plain))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        for model, value in ((twin, ours), (plain, theirs)):
            model.zero_grad()
            value.square().mean().backward()
        for mine, other in zip(twin.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)
