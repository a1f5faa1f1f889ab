"""Codebook usage within windows of tokens, against counting by hand."""

from __future__ import annotations

import pytest
import torch

from tests.metrics.passes import CUTS, measure
from vq.core import collectives
from vq.core.errors import UserError
from vq.core.random import key_of
from vq.registries import VQMetricRegistry

WHOLE = [list(range(11))]


def tokens_of(*shape, codes=40, seed=0):
    return torch.randint(codes, (11, *shape), generator=torch.Generator().manual_seed(seed))


def usage(tokens, cuts=WHOLE, codebook_size=40, **settings):
    metric = VQMetricRegistry.build(dict(type='WindowedCodebookMetric', codebook_size=codebook_size, **settings))
    return measure(metric, cuts, tokens=tokens)


def in_order(tokens):
    """One row of all tokens, images by their keys."""
    rows = sorted(range(11), key=lambda row: key_of(f'image {row}'))
    return [tuple(cell) for row in rows for cell in tokens[row].reshape(-1, tokens.shape[-1]).tolist()]


@pytest.mark.parametrize('window', [1, 7, 15, 40, 165])
def test_by_hand(window):
    tokens = tokens_of(3, 5)
    row = [token for (token,) in in_order(tokens[..., None])]
    windows = [row[start : start + window] for start in range(0, len(row) - window + 1, window)]
    expected = sum(len(set(part)) for part in windows) / len(windows) / 40
    assert usage(tokens, window=window) == {f'codebook_usage_{window}': pytest.approx(expected, rel=1e-12)}


def test_fewer_tokens_than_a_window_are_one_window():
    tokens = tokens_of(3, 5)
    assert usage(tokens) == {'codebook_usage_65536': len(set(tokens.flatten().tolist())) / 40}
    assert usage(tokens, []) == {'codebook_usage_65536': 0}


def test_several_codebooks():
    tokens = torch.stack([tokens_of(3, 5), tokens_of(3, 5, codes=9, seed=1)], dim=-1)
    row = in_order(tokens)
    windows = [row[start : start + 20] for start in range(0, len(row) - 19, 20)]
    expected = sum(len({a for a, _ in part}) + len({b for _, b in part}) for part in windows) / len(windows) / 49
    assert usage(tokens, codebook_size=[40, 9], window=20)['codebook_usage_20'] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('cuts', CUTS)
def test_the_cut_does_not_matter(cuts):
    tokens = tokens_of(3, 5)
    assert usage(tokens, cuts, window=20) == usage(tokens, window=20)


def test_errors():
    with pytest.raises(UserError, match='window'):
        usage(tokens_of(2), window=0)
    with pytest.raises(UserError, match='codebook_size'):
        usage(tokens_of(2), codebook_size=0)
    metric = VQMetricRegistry.build(dict(type='WindowedCodebookMetric', codebook_size=4))
    with pytest.raises(UserError, match='tokens'):
        measure(metric, WHOLE)


def share(everything):
    rows = [] if everything and collectives.rank() else list(range(9)) if collectives.rank() == 0 else list(range(6, 11))
    rows = list(range(11)) if everything and not collectives.rank() else rows
    return usage(tokens_of(3, 5), [rows[:3], rows[3:]] if rows else [], window=20)


@pytest.mark.slow
@pytest.mark.parametrize('everything', [False, True])
def test_two_ranks(gloo_pool, everything):
    assert gloo_pool.run(share, everything) == [usage(tokens_of(3, 5), window=20)] * 2
