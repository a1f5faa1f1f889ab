"""Codebook statistics against counting by hand."""

from __future__ import annotations

import math

import pytest
import torch

from vq.core import collectives
from vq.core.errors import UserError
from vq.core.random import key_of
from vq.core.records import Batch, Outputs
from vq.registries import VQMetricRegistry


def tokens_of(count, codes=13, seed=0):
    """Uneven use of the lower half of the codes."""
    return torch.randint(codes // 2, (count, 3, 5), generator=torch.Generator().manual_seed(seed)).square() % codes


def by_hand(tokens, codes):
    counts = [int((tokens == code).sum()) for code in range(codes)]
    shares = [count / sum(counts) for count in counts if count]
    entropy = -sum(share * math.log(share) for share in shares)
    return {
        'codebook_usage': len(shares) / codes,
        'perplexity': math.exp(entropy),
        'codebook_entropy': entropy,
        'dead_codes': codes - len(shares),
    }


def measure(tokens, cuts, codes=13):
    metric = VQMetricRegistry.build(dict(type='CodebookMetric', codebook_size=codes))
    for rows in cuts:
        ids = [f'image {row}' for row in rows]
        metric.update(
            Batch(torch.empty(len(rows), 3, 0, 0), ids, torch.tensor([key_of(name) for name in ids])),
            Outputs(tokens=tokens[rows]),
        )
    return metric.compute()


def test_by_hand():
    tokens = tokens_of(7)
    assert measure(tokens, [list(range(7))]) == pytest.approx(by_hand(tokens, 13), rel=1e-12)


@pytest.mark.parametrize(
    'cuts', [[[0, 1, 2, 3, 4], [5, 6]], [[6], [3, 2, 1], [0, 4, 5]], [[0, 1, 2, 0], [0, 3, 4, 5, 6, 6], [1]]]
)
def test_batches_are_as_good_as_their_union(cuts):
    """Two unequal batches, another order, repeated images: bitwise equal results."""
    tokens = tokens_of(7)
    assert measure(tokens, cuts) == measure(tokens, [list(range(7))])


def test_extremes():
    one = measure(torch.zeros(2, 4, dtype=torch.int64), [[0, 1]], codes=8)
    assert one == {'codebook_usage': 1 / 8, 'perplexity': 1.0, 'codebook_entropy': 0.0, 'dead_codes': 7}
    even = measure(torch.arange(8).view(2, 4), [[0], [1]], codes=8)
    assert even == pytest.approx({'codebook_usage': 1, 'perplexity': 8, 'codebook_entropy': math.log(8), 'dead_codes': 0})
    nothing = measure(torch.zeros(0, 4, dtype=torch.int64), [], codes=8)
    assert nothing['dead_codes'] == 8
    assert nothing['codebook_usage'] == 0


def test_reset_and_missing_tokens():
    metric = VQMetricRegistry.build(dict(type='CodebookMetric', codebook_size=3))
    batch = Batch(torch.empty(1, 3, 0, 0), ['a'], torch.tensor([1]))
    metric.update(batch, Outputs(tokens=torch.tensor([[0, 1]])))
    metric.reset()
    metric.update(batch, Outputs(tokens=torch.tensor([[2, 2]])))  # the same image counts in the new pass
    assert metric.compute()['perplexity'] == 1
    with pytest.raises(UserError, match='tokens'):
        metric.update(batch, Outputs())


def measure_share(count, overlap):
    rows = list(range(count - 1)) if collectives.rank() == 0 else list(range(count - 1 - overlap, count))
    return measure(tokens_of(count), [rows[:2], rows[2:]])


@pytest.mark.slow
@pytest.mark.parametrize('overlap', [0, 3])
def test_two_ranks_with_uneven_shares(gloo_pool, overlap):
    alone = measure(tokens_of(8), [list(range(8))])
    assert gloo_pool.run(measure_share, 8, overlap) == [alone, alone]


def several(tokens, sizes):
    metric = VQMetricRegistry.build(dict(type='CodebookMetric', codebook_size=sizes))
    for start in range(0, len(tokens), 4):
        ids = [f'image {row}' for row in range(start, min(start + 4, len(tokens)))]
        keys = torch.tensor([key_of(name) for name in ids])
        metric.update(Batch(torch.empty(len(ids), 3, 0, 0), ids, keys), Outputs(tokens=tokens[start : start + 4]))
    return metric.compute()


def test_several_codebooks_are_counted_apart():
    """Tokens (B, h, w, 2): the same number means another code in each."""
    tokens = torch.stack([tokens_of(7), tokens_of(7, codes=6, seed=1)], dim=-1)
    found = several(tokens, [13, 6])
    first, second = by_hand(tokens[..., 0], 13), by_hand(tokens[..., 1], 6)
    for number, expected in ((1, first), (2, second)):
        for name, value in expected.items():
            assert found[f'{name}_{number}'] == pytest.approx(value, rel=1e-12)
    assert found['dead_codes'] == first['dead_codes'] + second['dead_codes']
    assert found['codebook_usage'] == pytest.approx(1 - found['dead_codes'] / 19)
    assert found['codebook_entropy'] == pytest.approx((first['codebook_entropy'] + second['codebook_entropy']) / 2)
    assert found['perplexity'] == pytest.approx(math.exp(found['codebook_entropy']))


def test_one_size_in_a_list_is_that_size():
    tokens = tokens_of(7)
    assert several(tokens, [13]) == measure(tokens, [list(range(7))])


def test_sizes_that_do_not_fit_the_tokens():
    with pytest.raises(UserError, match='does not match 2 codebooks') as caught:
        several(tokens_of(7), [13, 13])
    assert 'list of the sizes' in caught.value.hint
