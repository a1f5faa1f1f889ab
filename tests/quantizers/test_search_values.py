"""Code search for codes that are not finite, very large, very small or equal, against float64."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor

from tests.quantizers.test_code_search import by_lazy_path, by_one_pass, by_two_passes, distances
from vq.quantizers.search import nearest_code, nearest_feature

NAN, INF = float('nan'), float('inf')


def without_reading(features: Tensor, codebook: Tensor, metric: str, budget: int) -> Tensor:
    """The search on devices whose values the host cannot read without waiting."""
    with mock.patch('vq.quantizers.search_codes.reads_are_free', return_value=False):
        return by_one_pass(features, codebook, metric, budget)


ROUTES = pytest.mark.parametrize('route', [by_one_pass, by_two_passes, by_lazy_path, without_reading])
METRICS = pytest.mark.parametrize('metric', ['l2', 'cosine'])


def inputs(codes: int = 2500, channels: int = 6, rows: int = 130) -> tuple[Tensor, Tensor]:
    torch.manual_seed(codes)
    return torch.randn(rows, channels), torch.randn(codes, channels)


def assert_nearest(tokens: Tensor, features: Tensor, codebook: Tensor, metric: str) -> None:
    """The chosen code may only differ if distances are equal in fp32."""
    table = distances(features, codebook, metric)
    least, chosen = table.min(1).values, table.gather(1, tokens[:, None]).squeeze(1)
    assert (chosen <= least + 1e-5 * table.abs().amax(1).clamp(max=1e4 * least.max())).all()
    assert (tokens == table.argmin(1)).float().mean() > 0.98


@ROUTES
@METRICS
@pytest.mark.parametrize('value', [NAN, INF, -INF])
@pytest.mark.parametrize('place', [0, 4, 2499])  # sampled for the centre: every second
def test_one_code_that_is_not_finite_changes_no_other_token(route, metric, value, place):
    features, codebook = inputs()
    expected = nearest_code(features, torch.cat([codebook[:place], codebook[place + 1 :]]), metric)
    expected = expected + (expected >= place)
    codebook[place, 3] = value
    assert torch.equal(route(features, codebook, metric, 2**20), expected)


@ROUTES
@METRICS
def test_codes_that_are_not_finite_are_chosen_only_if_all_are(route, metric):
    features, codebook = inputs(70)
    features[0, 0], features[1], features[2, 3] = NAN, NAN, INF
    codebook[:, 1] = torch.tensor([NAN, INF, -INF, 2.0**100]).repeat(18)[:70]
    assert route(features, codebook, metric, 2**20).tolist() == [0] * 130
    codebook[40:43, 1] = 1.0
    tokens = route(features, codebook, metric, 2**20)
    assert set(tokens.tolist()) <= {40, 41, 42}
    assert tokens[:2].tolist() == [40, 40], 'a feature that is not a number: the first code that is finite'
    assert torch.equal(tokens[3:], nearest_code(features[3:], codebook[40:43], metric) + 40)


@METRICS
def test_features_that_are_not_finite_are_nearest_to_no_code_in_a_swapped_search(metric):
    features, codebook = inputs(50)
    features[:20] = NAN
    assert nearest_feature(features, codebook, metric).min() >= 20


@ROUTES
@METRICS
@pytest.mark.parametrize('size', [1e19, 3e-19, 1e-22, 1e-28, 1e25])
@pytest.mark.parametrize('offset', [0.0, 20.0])
def test_magnitudes_of_codes_and_features(route, metric, size, offset):
    """Squares of 1e19 overflow, and squares of 1e-22 vanish. Multiplied by a power of two, tokens are the same to the last."""
    features, codebook = inputs()
    features, codebook = (features + offset) * size, (codebook + offset) * size
    assert_nearest(route(features, codebook, metric, 2**20), features / size, codebook / size, metric)


@ROUTES
@pytest.mark.parametrize('power', [-70, -40, 55, 80])
def test_a_power_of_two_changes_no_token(route, power):
    features, codebook = inputs()
    expected = route(features, codebook, 'l2', 2**20)
    assert torch.equal(route(features * 2.0**power, codebook * 2.0**power, 'l2', 2**20), expected)


@ROUTES
@METRICS
@pytest.mark.parametrize(('large', 'small'), [(1e38, 1.0), (1e19, 1e-22), (1e30, 1e12), (1.0, 1e-22), (1e-10, 1e-30)])
def test_features_far_larger_than_codes(route, metric, large, small):
    features, codebook = inputs()
    features, codebook = features.clamp(-3, 3), codebook * small
    features[50:] *= small
    expected = features.clone()
    features[:50] *= large
    tokens = route(features, codebook, metric, 2**20)
    assert_nearest(tokens[50:], expected[50:] / small, codebook / small, metric)
    if metric == 'cosine':
        assert_nearest(tokens[:50], expected[:50], codebook / small, metric)
    else:  # the length of the codes does not matter any more: the largest product
        products = expected[:50].double() @ codebook.double().t()
        assert (products.amax(1) - products.gather(1, tokens[:50, None])[:, 0] <= 1e-6 * products.amax(1)).all()


@ROUTES
def test_a_code_far_larger_than_the_others_spoils_none(route):
    features, codebook = inputs()
    expected = nearest_code(features, codebook[1:]) + 1
    for size in (1e9, 1e19, 1e26, 1e30, 3e38):
        codebook[0] = size
        assert torch.equal(route(features, codebook, 'l2', 2**20), expected), size


@ROUTES
@pytest.mark.parametrize('codes', [1, 3])
def test_a_constant_channel_of_any_size(route, codes):
    features, codebook = inputs(codes)
    expected = nearest_code(features, codebook)
    for size in (1e4, 1e19, 1e26):
        codebook[:, 2] = features[:, 2] = size
        plain = [value[:, [0, 1, 3, 4, 5]] for value in (features, codebook)]
        if size < 1e5:
            expected = nearest_code(*plain)
            assert torch.equal(route(features, codebook, 'l2', 2**20), expected)
        assert route(features, codebook, 'l2', 2**20).max() < codes


@ROUTES
def test_small_and_zero_vectors_have_a_direction_or_none(route):
    features, codebook = inputs(40)
    codebook[7] = 0
    scales = 10.0 ** torch.linspace(-28, 26, 40)[:, None]
    tokens = route(features * 1e-20, codebook * scales, 'cosine', 2**20)
    assert torch.equal(tokens, nearest_code(features, codebook, 'cosine'))
    assert route(torch.zeros(3, 6), codebook, 'cosine', 2**20).tolist() == [0, 0, 0]


@pytest.mark.parametrize('route', [by_one_pass, by_two_passes, without_reading])
@METRICS
@pytest.mark.parametrize(('rows', 'codes', 'channels'), [(9, 300, 298), (1, 1024, 17), (1, 4096, 5), (34, 110, 33)])
def test_equal_codes_go_to_the_first_for_every_budget(route, metric, rows, codes, channels):
    """Neither a narrow tile, nor a single feature, nor the place in memory may prefer a later copy of a code."""
    torch.manual_seed(codes)
    base = torch.randn(codes // 4, channels)
    which = torch.randint(len(base), (codes,))
    first = {int(value): place for place, value in reversed(list(enumerate(which.tolist())))}
    features = torch.randn(rows, channels)
    for budget in (1, 4096, 2**15, 2**16, 2**17, 2**22):
        tokens = route(features, base[which], metric, budget).tolist()
        assert tokens == [first[int(which[token])] for token in tokens], budget
