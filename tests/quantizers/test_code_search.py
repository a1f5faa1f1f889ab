"""Code search against brute force in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vq.quantizers import search
from vq.quantizers.search import nearest_code, nearest_feature, tile_shape


def distances(features: Tensor, codebook: Tensor, metric: str) -> Tensor:
    x, c = features.double(), codebook.double()
    if metric == 'cosine':
        return 1 - F.normalize(x, dim=1) @ F.normalize(c, dim=1).T
    return (x[:, None] - c).square().sum(2)


@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize(('rows', 'codes', 'channels'), [(1, 1, 1), (37, 300, 5), (513, 2049, 3), (70, 4097, 17)])
@pytest.mark.parametrize('budget', [4, 1000, 64 * 2**20])
def test_against_brute_force(metric, rows, codes, channels, budget):
    """Odd sizes, none a multiple of a tile. The chosen code may only differ where fp32 cannot tell two codes apart."""
    budget = max(budget, rows * codes // 1000)  # one score at a time would take minutes
    torch.manual_seed(rows)
    features, codebook = torch.randn(rows, channels), torch.randn(codes, channels)
    table = distances(features, codebook, metric)
    tokens = nearest_code(features, codebook, metric, budget)
    assert tokens.dtype == torch.int64
    excess = table.gather(1, tokens[:, None]).squeeze(1) - table.min(1).values
    assert excess.max() < 2e-6 * max(1.0, table.min(1).values.max().item())
    assert (tokens == table.argmin(1)).float().mean() > 0.99


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 3), st.integers(4, 4000), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_ties_go_to_the_lowest_index(rows, codes, channels, budget, source):
    """Small whole numbers: all scores are exact, and many codes are equal or equally far."""
    generator = torch.Generator().manual_seed(source.randrange(2**31))
    features = torch.randint(-2, 3, (rows, channels), generator=generator).float()
    codebook = torch.randint(-2, 3, (codes, channels), generator=generator).float()
    table = distances(features, codebook, 'l2')
    lowest = torch.arange(codes).expand_as(table).masked_fill(table > table.min(1, keepdim=True).values, codes).min(1).values
    assert torch.equal(nearest_code(features, codebook, 'l2', budget), lowest)


def test_ties_across_tiles(monkeypatch):
    monkeypatch.setattr(search, 'CPU_TILE_CODES', 8)
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-5.0, 0.0]])
    codebook = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]).repeat(10, 1)
    assert nearest_code(features, codebook).tolist() == [1, 3, 2]
    assert nearest_code(features, codebook, 'cosine').tolist() == [1, 0, 2]


@pytest.mark.parametrize('metric', ['l2', 'cosine'])
def test_nearest_feature_is_the_other_axis(metric):
    torch.manual_seed(0)
    features, codebook = torch.randn(301, 6), torch.randn(45, 6)
    expected = distances(features, codebook, metric).argmin(0)
    assert torch.equal(nearest_feature(features, codebook, metric, 2000), expected)


def test_same_tokens_under_autocast_and_loose_precision():
    """Codes closer together than bf16 can tell."""
    torch.manual_seed(0)
    codebook = 1 + torch.randn(200, 8) * 1e-3
    features = codebook[torch.randint(200, (500,))] + torch.randn(500, 8) * 1e-6
    expected = distances(features, codebook, 'l2').argmin(1)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision('medium')
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert (nearest_code(features, codebook) == expected).float().mean() > 0.999
            assert torch.equal(nearest_code(features, codebook), nearest_code(features.double(), codebook))
        assert torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.set_float32_matmul_precision(before)


def test_values_that_are_not_finite_still_give_indices():
    features = torch.tensor([[float('nan'), 0.0], [float('inf'), 1.0], [0.0, 1.0]])
    tokens = nearest_code(features, torch.randn(5, 2))
    assert tokens.min() >= 0
    assert tokens.max() < 5


def test_no_features_and_the_meta_device():
    assert nearest_code(torch.empty(0, 3), torch.randn(4, 3)).shape == (0,)
    tokens = nearest_code(torch.empty(7, 3, device='meta'), torch.empty(4, 3, device='meta'))
    assert tokens.shape == (7,)
    assert tokens.dtype == torch.int64


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize(('rows', 'codes'), [(4096, 16384), (1, 2**18), (65536, 3), (100, 100)])
@pytest.mark.parametrize('budget', [1, 4, 4096, 2**20, 2**26])
def test_tiles_keep_to_the_budget(device, rows, codes, budget):
    high, wide = tile_shape(rows, codes, budget, torch.device(device))
    assert 1 <= high <= rows
    assert 1 <= wide <= codes
    assert high * wide * 4 <= max(budget, 4)


def test_memory_is_the_tile_not_the_matrix():
    """The largest tensor that any operation makes: far below N x K."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple) else (result,):
                if isinstance(value, Tensor):
                    self.bytes = max(self.bytes, value.untyped_storage().nbytes())
            return result

    features, codebook = torch.randn(2000, 4), torch.randn(5000, 4)
    with Largest() as seen:
        search.search(features, codebook, False, 2**18)
    assert 0 < seen.bytes <= 2**18
