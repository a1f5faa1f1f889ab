"""torch.compile compiles quantizers without graph breaks, to the same tokens and the same codebook."""

from __future__ import annotations

import pytest
import torch

KNOWN: set[str] = set()  # graphs whose generated code was found to equal eager


@pytest.mark.slow
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(
    'kind',
    [
        'ema_restart',
        'cvq',
        'fsq',
        'rotation',
        'entropy',
        'lfq',
        'bsq_joint',
        'simvq_rotation',
        'ibq',
    ],
)
def test_fullgraph(make, kind, training):
    """By generated code, once for each graph: some quantizers differ in what they do outside of it."""
    met = []

    from torch._inductor.compile_fx import compile_fx  # takes seconds to import

    def inductor(graph, inputs):
        met.append(f'{graph.code} {[(value.shape, value.stride(), value.dtype, value.requires_grad) for value in inputs]}')
        return graph.forward if met[-1] in KNOWN else compile_fx(graph, inputs)

    compare(make, kind, training, inductor)
    assert met
    KNOWN.update(met)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['cvq_multinomial', 'cvq_cached', 'contrastive', 'ema_images', 'fsq_symmetric'])
def test_one_graph(make, kind):
    """There is one graph; the compiled code is tested above."""
    compare(make, kind, True, 'aot_eager')


def compare(make, kind, training, backend):
    torch.compiler.reset()  # every kind recompiles the same code, and torch allows eight recompilations
    plain, twin = make(kind).train(training), make(kind).train(training)
    compiled = torch.compile(twin, backend=backend, fullgraph=True, dynamic=False)
    for step in range(3):
        features = torch.randn(24, 5, generator=torch.Generator().manual_seed(step), requires_grad=True)
        ours, theirs = plain(features), compiled(features)
        assert torch.equal(ours.tokens, theirs.tokens)
        torch.testing.assert_close(ours.z, theirs.z)
        gradients = [
            torch.autograd.grad(sum(out.losses.values(), start=out.z.square().sum()), features)[0] for out in (ours, theirs)
        ]
        torch.testing.assert_close(*gradients)
        plain.update()
        twin.update()
        for key, value in plain.state_dict().items():
            torch.testing.assert_close(value, twin.state_dict()[key])
