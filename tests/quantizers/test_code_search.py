"""Code search against brute force in float64."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vq.core.errors import UserError
from vq.quantizers import search
from vq.quantizers.search import Tiles, nearest_code, nearest_feature, tiles_of_one_pass, tiles_of_two_passes


def distances(features: Tensor, codebook: Tensor, metric: str) -> Tensor:
    x, c = features.double(), codebook.double()
    if metric == 'cosine':
        return 1 - F.normalize(x, dim=1) @ F.normalize(c, dim=1).T
    return (x[:, None] - c).square().sum(2)


def first_of_lowest(table: Tensor) -> Tensor:
    """The first column with the smallest value of each row."""
    columns = torch.arange(table.shape[1]).expand_as(table)
    return columns.masked_fill(table > table.min(1, keepdim=True).values, table.shape[1]).min(1).values


def by_one_pass(features: Tensor, codebook: Tensor, metric: str, budget: int) -> Tensor:
    """The search on a GPU without Triton, and for few features."""
    return search._search_torch(features, search.Codes(codebook, metric == 'cosine', budget), budget, twice=False)


def by_two_passes(features: Tensor, codebook: Tensor, metric: str, budget: int) -> Tensor:
    """The search on the CPU for many features."""
    return search._search_torch(features, search.Codes(codebook, metric == 'cosine', budget), budget, twice=True)


def by_lazy_path(features: Tensor, codebook: Tensor, metric: str, budget: int) -> Tensor:
    return search._search_lazy(features, search.Codes(codebook, metric == 'cosine', budget), budget)


ROUTES = pytest.mark.parametrize('route', [by_one_pass, by_two_passes, by_lazy_path])


@pytest.mark.slow
@ROUTES
@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize(
    ('rows', 'codes', 'channels'), [(1, 1, 1), (37, 300, 5), (513, 2049, 3), (70, 4097, 17), (9, 77, 300)]
)
@pytest.mark.parametrize('budget', [4, 2**18, 2**24])
def test_against_brute_force(route, metric, rows, codes, channels, budget):
    """Odd sizes, none a multiple of a tile. The chosen code may only differ if distances are equal in fp32."""
    budget = budget if codes == 1 else max(budget, 16384)  # one score at a time would take minutes
    torch.manual_seed(rows)
    features, codebook = torch.randn(rows, channels), torch.randn(codes, channels)
    table = distances(features, codebook, metric)
    tokens = route(features, codebook, metric, budget)
    assert tokens.dtype == torch.int64
    excess = table.gather(1, tokens[:, None]).squeeze(1) - table.min(1).values
    assert excess.max() < 2e-6 * max(1.0, table.min(1).values.max().item())
    assert (tokens == table.argmin(1)).float().mean() > 0.99


@pytest.mark.slow
@ROUTES
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 3), st.integers(4, 4000), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_ties_go_to_the_lowest_index(route, rows, codes, channels, budget, source):
    """Small integers: all scores are exact, and many codes are equal or equally far."""
    generator = torch.Generator().manual_seed(source.randrange(2**31))
    features = torch.randint(-2, 3, (rows, channels), generator=generator).float()
    codebook = torch.randint(-2, 3, (codes, channels), generator=generator).float()
    table = distances(features, codebook, 'l2')
    assert torch.equal(route(features, codebook, 'l2', budget), first_of_lowest(table))


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 3), st.integers(200, 4000), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_ties_of_features_go_to_the_lowest_index(rows, codes, channels, budget, source):
    generator = torch.Generator().manual_seed(source.randrange(2**31))
    features = torch.randint(-2, 3, (rows, channels), generator=generator).float()
    codebook = torch.randint(-2, 3, (codes, channels), generator=generator).float()
    expected = first_of_lowest(distances(features, codebook, 'l2').t())
    assert torch.equal(nearest_feature(features, codebook, 'l2', budget), expected)


@pytest.mark.parametrize('route', [by_one_pass, by_two_passes])
@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize(
    ('rows', 'codes', 'channels'), [(446, 74, 3), (289, 2919, 298), (50, 33, 8), (300, 1500, 32), (7, 5, 2)]
)
def test_equal_codes_go_to_the_first(route, metric, rows, codes, channels):
    """Copies of codes at any index: neither the edge of a tile nor the second pass may prefer a later copy."""
    torch.manual_seed(codes)
    base = torch.randn(max(1, codes // 4), channels)
    which = torch.randint(len(base), (codes,))
    first = {int(value): place for place, value in reversed(list(enumerate(which.tolist())))}
    tokens = route(torch.randn(rows, channels), base[which], metric, 2**22).tolist()
    assert tokens == [first[int(which[token])] for token in tokens]


@pytest.mark.parametrize('route', [by_one_pass, by_two_passes])
def test_ties_across_tiles(monkeypatch, route):
    for name in ('tiles_of_one_pass', 'tiles_of_two_passes'):
        monkeypatch.setattr(search, name, lambda *_: Tiles(2, 2, 8))
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-5.0, 0.0]])
    codebook = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]).repeat(10, 1)
    assert route(features, codebook, 'l2', 2**20).tolist() == [1, 3, 2]
    assert route(features, codebook, 'cosine', 2**20).tolist() == [1, 0, 2]


@pytest.mark.parametrize('metric', ['l2', 'cosine'])
def test_nearest_feature_is_the_other_axis(metric):
    torch.manual_seed(0)
    features, codebook = torch.randn(301, 6), torch.randn(45, 6)
    expected = distances(features, codebook, metric).argmin(0)
    assert torch.equal(nearest_feature(features, codebook, metric, 2000), expected)


def test_same_tokens_under_autocast_and_loose_precision():
    """Codes closer together than the resolution of bf16."""
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


@pytest.mark.slow
@pytest.mark.parametrize('offset', [0.0, 30.0, -1000.0])
def test_an_offset_of_all_codes_costs_no_digits(offset):
    """Without centring, scores would keep four digits at an offset of 1000, and half of the tokens would be wrong."""
    torch.manual_seed(0)
    features, codebook = torch.randn(400, 16) + offset, torch.randn(3000, 16) + offset
    expected = distances(features, codebook, 'l2').argmin(1)
    assert (nearest_code(features, codebook) == expected).float().mean() > 0.995


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_searched_in_fp32(dtype):
    torch.manual_seed(0)
    features, codebook = torch.randn(300, 9).to(dtype), torch.randn(700, 9).to(dtype)
    expected = nearest_code(features.float(), codebook.float())
    assert torch.equal(nearest_code(features, codebook), expected)


@ROUTES
def test_values_that_are_not_finite_still_give_indices(route):
    nan, inf = float('nan'), float('inf')
    features = torch.tensor([[nan, 0.0], [inf, 1.0], [-inf, inf], [0.0, 1.0], [nan, nan]])
    for codes in (5, 33, 4000):
        tokens = route(features, torch.randn(codes, 2), 'l2', 2**20)
        assert tokens.min() >= 0
        assert tokens.max() < codes
        assert tokens[0] == tokens[4] == 0, 'a feature that is not a number has no nearest code: the first'


def test_no_features_and_the_meta_device():
    assert nearest_code(torch.empty(0, 3), torch.randn(4, 3)).shape == (0,)
    tokens = nearest_code(torch.empty(7, 3, device='meta'), torch.empty(4, 3, device='meta'))
    assert tokens.shape == (7,)
    assert tokens.dtype == torch.int64


SHAPES = [(4096, 16384, 8), (4096, 2**18, 256), (1, 2**18, 64), (65536, 3, 5), (100, 100, 4096), (1, 1, 1)]


@pytest.mark.parametrize(('rows', 'codes', 'channels'), SHAPES)
@pytest.mark.parametrize('budget', [1, 4, 4096, 2**20, 2**26])
def test_tiles_keep_to_the_budget(rows, codes, channels, budget):
    for cut in (tiles_of_one_pass, tiles_of_two_passes):
        tiles = cut(rows, codes, channels, budget)
        assert 1 <= tiles.rows <= tiles.features <= rows
        assert tiles.width % 32 == 0 and tiles.width < codes + 32
        assert tiles.rows == 1 or 4 * tiles.rows * tiles.width <= budget // 2
        assert tiles.width == 32 or 4 * tiles.width * channels <= budget // 4


class Held(TorchDispatchMode):
    """Peak bytes of tensors created while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for value in [*args, *(kwargs or {}).values()]:
            if isinstance(value, Tensor):
                self.known(value, new=False)
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.known(value, new=True)
        return result

    def known(self, value: Tensor, new: bool) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if new else 0
        if key not in self.seen:
            self.seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@pytest.mark.slow
@pytest.mark.parametrize('metric', ['l2', 'cosine'])
@pytest.mark.parametrize(
    ('rows', 'codes', 'channels', 'offset', 'budget', 'dtype'),
    [
        (2000, 5000, 4, 0, 2**18, torch.float32),
        (300, 2**15, 256, 0, None, torch.float32),
        (300, 2**15, 256, 50, None, torch.bfloat16),
        (30000, 2000, 64, 50, None, torch.float32),
        (300, 1000, 256, 50, None, torch.float32),
        (100, 2**18, 8, 50, None, torch.float32),
    ],
)
def test_memory_is_the_budget(metric, rows, codes, channels, offset, budget, dtype):
    """All intermediate tensors, including copies of features and codes: by default at most 16 MB, without tokens."""
    features, codebook = (torch.randn(count, channels).add_(offset).to(dtype) for count in (rows, codes))
    with Held() as held:
        tokens = nearest_code(features, codebook, metric, budget)
    assert 0 < held.peak <= (budget or 15e6) + 8 * rows
    assert held.now <= 8 * rows, 'nothing but the tokens is left'
    assert len(tokens) == rows
    with Held() as held:
        nearest_feature(features, codebook, metric, budget)
    assert 0 < held.peak <= (budget or 15e6) + 8 * codes
    for route in (by_one_pass, by_two_passes):
        with Held() as held:
            route(features, codebook, metric, budget or 2**24)
        assert 0 < held.peak <= (budget or 2**24) + 8 * rows


def test_the_torch_path_can_be_chosen_and_a_wrong_name_is_refused(monkeypatch):
    features, codebook = torch.randn(3, 2), torch.randn(4, 2)
    expected = nearest_code(features, codebook)
    assert torch.equal(nearest_code(features, codebook, backend='torch'), expected)
    monkeypatch.setenv('VQ_CODE_SEARCH', 'torch')
    assert torch.equal(nearest_code(features, codebook), expected)
    monkeypatch.setenv('VQ_CODE_SEARCH', 'faiss')
    with pytest.raises(UserError, match='faiss'):
        nearest_code(features, codebook)
