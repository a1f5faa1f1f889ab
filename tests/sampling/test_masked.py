"""Schedules, mask ratios, confidence and orders of masked generation, against closed forms, SciPy and plain loops."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import gumbel_r, kstest, truncnorm
from scipy.stats.qmc import Halton

from vq.sampling.masked import (
    SCHEDULES,
    confidence,
    gumbel,
    halton_order,
    hidden_counts,
    hidden_share,
    hide,
    most_confident,
    steps_of_order,
    truncated_normal_mask_ratio,
    uniforms_of_tokens,
)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


# schedules and counts

VALUES = {  # gamma at 0, 1/4, 1/2, 3/4, 1, by hand
    'cosine': [1, math.sqrt(2 + math.sqrt(2)) / 2, math.sqrt(0.5), math.sqrt(2 - math.sqrt(2)) / 2, 0],
    'linear': [1, 0.75, 0.5, 0.25, 0],
    'square': [1, 15 / 16, 0.75, 7 / 16, 0],
    'arccos': [1, 2 * math.acos(0.25) / math.pi, 2 / 3, 2 * math.acos(0.75) / math.pi, 0],
}


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_hidden_share_is_the_closed_form(schedule):
    progress = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)
    wanted = torch.tensor(VALUES[schedule], dtype=torch.float64)
    torch.testing.assert_close(hidden_share(progress, schedule), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ('schedule', 'free', 'steps', 'counts'),
    [
        ('cosine', 16, 4, [14, 11, 6, 0]),
        ('cosine', 16, 1, [0]),
        ('linear', 10, 10, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),  # 10 (1 - 9 / 10) is below 1 in floating point
        ('square', 16, 4, [15, 12, 7, 0]),
        ('arccos', 9, 2, [6, 0]),
        ('cosine', 3, 12, [2, 1, 0]),  # one token a step, and no more steps than tokens
        ('cosine', 8, 6, [7, 6, 5, 4, 2, 0]),
        ('linear', 1, 5, [0]),
        ('cosine', 0, 5, []),
    ],
)
def test_hidden_counts_by_hand(schedule, free, steps, counts):
    assert hidden_counts(free, steps, schedule) == counts


def test_hidden_counts_of_maskgit_with_256_tokens():
    wanted = [math.floor(256 * math.cos(math.pi / 2 * step / 12)) for step in range(1, 12)]
    assert hidden_counts(256, 12) == [*wanted, 0]


@pytest.mark.parametrize('schedule', ['linear', 'square'])
def test_hidden_counts_are_exact_in_whole_numbers(schedule):
    power = {'linear': 1, 'square': 2}[schedule]
    for free in (7, 49, 100, 256):
        for steps in (1, 3, 7, 10):
            counts = hidden_counts(free, steps, schedule)
            exact = [math.floor(free * (1 - Fraction(step, steps) ** power)) for step in range(1, steps + 1)]
            if all(a > b for a, b in pairwise([free, *exact])):
                assert counts == exact


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_every_step_fixes_a_token_and_the_last_one_all(schedule):
    for free in range(1, 40):
        for steps in range(1, 45):
            counts = [free, *hidden_counts(free, steps, schedule)]
            assert len(counts) == 1 + min(free, steps)
            assert all(before > after for before, after in pairwise(counts)) and counts[-1] == 0


# masked tokens in training


def test_cosine_mask_ratio_has_the_arccos_distribution():
    ratio = hidden_share(torch.rand(4000, generator=stream()), 'cosine')
    assert kstest(ratio.numpy(), lambda r: 1 - 2 * np.arccos(np.clip(r, 0, 1)) / np.pi).pvalue > 0.05
    assert kstest(ratio.numpy(), 'uniform').pvalue < 1e-6  # the test can detect it


def test_mage_mask_ratio_is_a_truncated_normal():
    uniform = torch.rand(4000, generator=stream(1))
    ratio = truncated_normal_mask_ratio(uniform)
    reference = truncnorm((0.5 - 0.55) / 0.25, (1 - 0.55) / 0.25, 0.55, 0.25)
    np.testing.assert_allclose(ratio, reference.ppf(uniform.double().numpy()), atol=2e-6)
    assert kstest(ratio.double().numpy(), reference.cdf).pvalue > 0.05
    ends = truncated_normal_mask_ratio(torch.tensor([0.0, 1 - 2**-24]))
    assert ends.min() >= 0.5 and ends.max() <= 1
    torch.testing.assert_close(ends, torch.tensor([0.5, 1.0]))


def test_hide_counts_exactly_and_takes_every_set_equally_often():
    ratio = torch.tensor([0.0, 1e-6, 0.2, 0.21, 0.999, 1.0])
    assert hide(ratio, torch.rand(6, 5, generator=stream())).sum(1).tolist() == [1, 1, 1, 2, 5, 5]
    drawn = hide(torch.full((6000,), 0.5), torch.rand(6000, 4, generator=stream(2)))
    sets = (drawn.long() * torch.tensor([1, 2, 4, 8])).sum(1).bincount(minlength=16)
    assert sets.nonzero().flatten().tolist() == [3, 5, 6, 9, 10, 12]
    assert (sets[sets > 0] - 1000).abs().max() < 120  # four deviations


def splitmix(state):
    """The output of the published generator for one state, in Python integers."""
    word = (1 << 64) - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & word
    return state ^ (state >> 31)


def test_numbers_of_tokens_are_splitmix_uniform_and_of_the_row_alone():
    tokens = torch.randint(1000, (50, 15), generator=stream(3))
    drawn = uniforms_of_tokens(tokens, 40)
    row = tokens[7].tolist()
    key = sum(splitmix(token + splitmix(place)) for place, token in enumerate(row, 1)) & ((1 << 64) - 1)
    wanted = [(splitmix((key + i * 0x9E3779B97F4A7C15) & ((1 << 64) - 1)) >> 40) / 2**24 for i in range(1, 41)]
    assert drawn[7].tolist() == wanted
    assert kstest(drawn.flatten().numpy(), 'uniform').pvalue > 0.05
    assert drawn.dtype == torch.float32 and drawn.min() >= 0 and drawn.max() < 1
    assert torch.equal(uniforms_of_tokens(tokens[7:9].flip(0), 40), drawn[7:9].flip(0))
    swapped = tokens[:1].clone()
    swapped[0, [0, 1]] = swapped[0, [1, 0]]
    assert (uniforms_of_tokens(swapped, 40) != drawn[:1]).float().mean() > 0.9


# tokens that are fixed


def test_gumbel_noise_is_the_inverse_of_its_distribution_and_finite():
    uniform = torch.linspace(0.001, 0.999, 500)
    np.testing.assert_allclose(gumbel(uniform), gumbel_r.ppf(uniform.double().numpy()), rtol=1e-4, atol=1e-5)
    assert gumbel(torch.tensor([0.0, 1 - 2**-24])).isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_confidence_and_choice_against_loops(dtype):
    logits = torch.randn(3, 7, 11, generator=stream(5)).to(dtype)
    tokens = torch.randint(11, (3, 7), generator=stream(6))
    uniform = torch.rand(3, 7, generator=stream(7))
    hidden = torch.rand(3, 7, generator=stream(8)).argsort(1) < 5
    score = confidence(logits, tokens, 2.5, uniform)
    assert score.dtype == torch.float32
    chosen = most_confident(score, hidden, 2)
    for b in range(3):
        scores = {}
        for i in range(7):
            row = [float(value) for value in logits[b, i]]
            log_p = row[int(tokens[b, i])] - math.log(sum(math.exp(value) for value in row))
            noise = -math.log(-math.log(float(uniform[b, i])))
            assert abs(float(score[b, i]) - (log_p + 2.5 * noise)) < 1e-4
            if hidden[b, i]:
                scores[i] = log_p + 2.5 * noise
        assert chosen[b].nonzero().flatten().tolist() == sorted(sorted(scores, key=scores.get)[-2:])


def test_equal_scores_choose_the_first_and_never_what_is_fixed():
    hidden = torch.tensor([[False, True, True, False, True, True]])
    assert most_confident(torch.zeros(1, 6), hidden, 2).tolist() == [[False, True, True, False, False, False]]
    low = torch.tensor([[9.0, -1e30, -1e30, 9.0, -1e30, -1e30]])
    assert torch.equal(most_confident(low, hidden, 4), hidden)


# Halton order


@pytest.mark.parametrize('shape', [(4, 4), (3, 5), (8, 9), (16, 16), (1, 4), (15,)])
def test_halton_order_is_scipys_sequence(shape):
    points = Halton(d=len(shape), scramble=False).random(6000)[1:]
    cells = np.floor(points * np.array(shape) + 1e-9).astype(int)
    flat = cells[:, 0] * shape[1] + cells[:, 1] if len(shape) == 2 else cells[:, 0]
    wanted = list(dict.fromkeys(flat.tolist()))
    assert list(halton_order(shape)) == wanted
    assert sorted(wanted) == list(range(math.prod(shape)))


def test_halton_order_begins_as_by_hand():
    # points (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9) of a grid of 4 x 3
    assert halton_order((4, 3))[:4] == (2 * 3 + 1, 1 * 3 + 2, 3 * 3 + 0, 0 * 3 + 1)


def test_steps_of_order_agree_with_the_counts():
    order, counts = [5, 0, 3, 6, 2], hidden_counts(5, 3, 'linear')
    assert counts == [3, 1, 0]
    assert steps_of_order(order, 8, counts).tolist() == [0, -1, 2, 1, -1, 0, 1, -1]
