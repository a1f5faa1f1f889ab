"""The kernel of the code search against the torch path: in Triton's interpreter, and on a GPU if there is one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

from tests.snippets import ROOT, environment
from vq.quantizers.search import nearest_code, nearest_feature
from vq.quantizers.search_cuda import BLOCK_K, BLOCK_N, parts_of, search_by_kernel

SHAPES = [(1, 1, 1), (37, 300, 5), (65, 513, 8), (70, 257, 24), (33, 520, 256), (20, 100, 300)]

# Triton cannot turn its one-element arrays into loop bounds under numpy 2.4 and later; ``item`` can. Triton 3.8 has a scope.
INTERPRETED = """
import torch
import triton.runtime.interpreter as interpreter

patch = interpreter._patch_lang_tensor
def patch_and_mend(tensor, *scope):
    patch(tensor, *scope)
    tensor.__index__ = lambda self: int(self.handle.data.item())
interpreter._patch_lang_tensor = patch_and_mend

from tests.quantizers.test_search_cuda import compare
compare(torch.device('cpu'))
print('compared')
"""


def compare(device: torch.device) -> None:
    """All checks of the kernel, on a device."""
    torch.manual_seed(0)
    for shape in SHAPES:
        for cosine in (False, True):
            for programs in (1, 9):  # one part of the codes, and several
                same_distances(*shape, cosine, programs, device)
                same_tokens_where_all_is_exact(*shape, cosine, programs, device)
    same_tokens_after_an_offset(device)
    same_tokens_in_other_layouts(device)
    odd_values_give_indices(device)
    same_tokens_for_codes_that_are_not_finite(device)
    same_tokens_for_any_magnitude(device)


def same_distances(rows: int, codes: int, channels: int, cosine: bool, programs: int, device: torch.device) -> None:
    """Random numbers: two codes can be equally near within fp32, so distances of the chosen codes must agree."""
    features, codebook = torch.randn(rows, channels, device=device), torch.randn(codes, channels, device=device)
    tokens = search_by_kernel(features, codebook, cosine, programs)
    expected = nearest_code(features, codebook, 'cosine' if cosine else 'l2', backend='torch')
    assert tokens.dtype == torch.int64 and tokens.shape == (rows,)
    x, c = features.double(), codebook.double()
    if cosine:
        x, c = torch.nn.functional.normalize(x, dim=1), torch.nn.functional.normalize(c, dim=1)
    ours, theirs = ((x - c[chosen]).square().sum(1) for chosen in (tokens, expected))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6), (rows, codes, channels, cosine, programs)


def same_tokens_where_all_is_exact(
    rows: int, codes: int, channels: int, cosine: bool, programs: int, device: torch.device
) -> None:
    """Small integers with many equal codes; for cosine, codes along the axes, which are normalized exactly."""
    features = torch.randint(-2, 3, (rows, channels), device=device).float()
    codebook = torch.randint(-2, 3, (codes, channels), device=device).float()
    if cosine:
        codebook = torch.eye(channels, device=device)[torch.randint(channels, (codes,), device=device)]
        codebook = codebook * 2.0 ** torch.randint(-2, 3, (codes, 1), device=device)
    tokens = search_by_kernel(features, codebook, cosine, programs)
    expected = nearest_code(features, codebook, 'cosine' if cosine else 'l2', backend='torch')
    assert torch.equal(tokens, expected), (rows, codes, channels, cosine, programs)


def same_tokens_after_an_offset(device: torch.device) -> None:
    features, codebook = torch.randn(50, 12, device=device) + 1000, torch.randn(200, 12, device=device) + 1000
    expected = (features.double()[:, None] - codebook.double()).square().sum(2).argmin(1)
    assert (search_by_kernel(features, codebook, False, 1) == expected).float().mean() > 0.97


def same_tokens_in_other_layouts(device: torch.device) -> None:
    """bf16, rows with gaps between them, columns first, fp64, no features at all."""
    features, codebook = torch.randint(-2, 3, (40, 6), device=device), torch.randint(-2, 3, (90, 6), device=device)
    expected = nearest_code(features.float(), codebook.float(), backend='torch')
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x, c = features.to(dtype), codebook.to(dtype)
        gaps = torch.cat([c, c + 1], dim=1)[:, :6]
        for layout in (c, gaps, c.t().contiguous().t()):
            assert torch.equal(search_by_kernel(x, layout, False, 1), expected), dtype
    assert search_by_kernel(features[:0].float(), codebook.float(), False, 1).shape == (0,)


def odd_values_give_indices(device: torch.device) -> None:
    nan, inf = float('nan'), float('inf')
    features = torch.tensor([[nan, 0.0], [inf, 1.0], [-inf, inf], [0.0, 1.0], [nan, nan]], device=device)
    for codes in (5, 65, 300):
        tokens = search_by_kernel(features, torch.randn(codes, 2, device=device), False, 9)
        assert int(tokens.min()) >= 0 and int(tokens.max()) < codes
        assert tokens[0] == tokens[4] == 0
    codebook = torch.randn(100, 3, device=device)
    codebook[70] = nan
    tokens = search_by_kernel(torch.randn(5, 3, device=device), codebook, True, 1)
    assert 70 not in tokens.tolist(), 'a code that is not a number is never chosen, as in the torch path'


def same_tokens_for_codes_that_are_not_finite(device: torch.device) -> None:
    nan, inf = float('nan'), float('inf')
    features, codebook = torch.randint(-2, 3, (20, 3), device=device).float(), torch.randint(-2, 3, (300, 3), device=device)
    features[0, 1] = nan
    for cosine in (False, True):
        codes = torch.eye(3, device=device)[codebook[:, 0] % 3] if cosine else codebook.float()
        for usable in (range(1, 300), range(290, 300, 5), range(0)):
            bad = torch.tensor([code not in usable for code in range(300)], device=device)
            spoilt = codes.clone()
            spoilt[bad, 1] = torch.tensor([nan, inf, -inf, 2.0**100], device=device).repeat(75)[: int(bad.sum())]
            tokens = search_by_kernel(features, spoilt, cosine, 9)
            expected = nearest_code(features, spoilt, 'cosine' if cosine else 'l2', backend='torch')
            assert torch.equal(tokens, expected), (cosine, usable)


def same_tokens_for_any_magnitude(device: torch.device) -> None:
    """Small integers times powers of two: products are exact."""
    features, codebook = torch.randint(-2, 3, (20, 5), device=device).float(), torch.randint(-2, 3, (200, 5), device=device)
    axes = torch.eye(5, device=device)[codebook[:, 0] % 5]
    for power in (-95, -73, 63, 85):
        for cosine, codes in ((False, codebook.float()), (True, axes)):
            expected = search_by_kernel(features, codes, cosine, 9)
            tokens = search_by_kernel(features * 2.0**power, codes * 2.0**power, cosine, 9)
            assert torch.equal(tokens, expected), (power, cosine)
            far = search_by_kernel(features * 2.0**120, codes * 2.0**power, cosine, 1)
            metric = 'cosine' if cosine else 'l2'
            assert torch.equal(far, nearest_code(features * 2.0**120, codes * 2.0**power, metric, backend='torch')), power
            spoilt = torch.cat([torch.full_like(codes[:1], 1e27), codes])
            expected = nearest_code(features, spoilt, metric, backend='torch')
            assert torch.equal(search_by_kernel(features, spoilt, cosine, 9), expected), power


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='Triton is not installed')
def test_kernel_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', INTERPRETED],
        cwd=ROOT,
        env={**environment(), 'TRITON_INTERPRET': '1', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == 'compared', done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_kernel_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device('cuda')
    compare(device)
    features, codebook = torch.randint(-2, 3, (300, 4)).float(), torch.randint(-2, 3, (500, 4)).float()
    expected = nearest_code(features, codebook), nearest_feature(features, codebook)
    on_device = features.to(device), codebook.to(device)
    for name in ('auto', 'torch', 'triton'):
        monkeypatch.setenv('VQ_CODE_SEARCH', name)
        assert torch.equal(nearest_code(*on_device).cpu(), expected[0]), name
        assert torch.equal(nearest_feature(*on_device).cpu(), expected[1]), name


@pytest.mark.parametrize(('features', 'codes'), [(1, 1), (1, 2**18), (4096, 16384), (2**20, 100), (63, 4097)])
@pytest.mark.parametrize('programs', [1, 7, 264])
def test_parts_cover_the_codes_once(features: int, codes: int, programs: int) -> None:
    """No part is empty, so each has a best code. The number of programs exceeds the requested one by at most one part."""
    parts, codes_per_part = parts_of(features, codes, programs)
    assert codes_per_part % BLOCK_K == 0
    assert (parts - 1) * codes_per_part < codes <= parts * codes_per_part
    assert parts == 1 or (parts - 1) * -(-features // BLOCK_N) < programs
