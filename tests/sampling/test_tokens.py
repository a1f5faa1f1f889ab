"""Token samplers: against brute force, transformers' warpers, and expected frequencies."""

from __future__ import annotations

import pytest
import torch

from vq.core.errors import ConfigError
from vq.registries import VQSamplerRegistry
from vq.sampling.tokens import candidates, draw, greedy, multinomial

LAST = 0.99999994  # the last fp32 number before 1


def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The probabilities of ``multinomial``, (..., V), in the order of ids."""
    weights, ids = candidates(logits, temperature, top_k, top_p, min_p)
    if ids is not None:
        weights = torch.zeros(logits.shape).scatter(-1, ids, weights)
    return weights / weights.sum(-1, keepdim=True)


def brute_force(logits, temperature, top_k, top_p, min_p):
    """One row, token by token, in float64."""
    p = (logits.double() / temperature).softmax(0)
    order = sorted(range(len(p)), key=lambda token: -p[token])
    left = order[:top_k] if top_k else order
    total, reached, kept = sum(p[token] for token in left), 0.0, []
    for token in left:
        if reached >= top_p * total:
            break
        kept.append(token)
        reached += p[token]
    kept = [token for token in kept if p[token] >= min_p * p[order[0]]]
    result = torch.zeros_like(p)
    result[kept] = p[kept] / p[kept].sum()
    return result.float()


SETTINGS = [
    (1.0, 0, 1.0, 0.0),
    (0.7, 0, 1.0, 0.0),
    (1.0, 1, 1.0, 0.0),
    (1.3, 5, 1.0, 0.0),
    (1.0, 37, 1.0, 0.0),
    (1.0, 100, 1.0, 0.0),
    (1.0, 0, 0.9, 0.0),
    (0.5, 0, 1e-6, 0.0),
    (1.0, 0, 1.0, 0.1),
    (1.0, 0, 1.0, 1.0),
    (1.2, 9, 0.8, 0.05),
]


@pytest.mark.parametrize('settings', SETTINGS)
def test_filters_are_those_of_brute_force(settings):
    logits = 2 * torch.randn(6, 37, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([brute_force(row, *settings) for row in logits])
    found = probabilities(logits, *settings)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('settings', SETTINGS)
def test_filters_are_those_of_transformers(settings):
    warpers = pytest.importorskip('transformers.generation.logits_process')
    temperature, top_k, top_p, min_p = settings
    logits = 2 * torch.randn(5, 41, generator=torch.Generator().manual_seed(1))
    scores = warpers.TemperatureLogitsWarper(temperature)(None, logits) if temperature != 1 else logits
    if top_k:
        scores = warpers.TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = warpers.TopPLogitsWarper(top_p)(None, scores)
    if min_p:
        scores = warpers.MinPLogitsWarper(min_p)(None, scores)
    torch.testing.assert_close(probabilities(logits, *settings), scores.softmax(-1), rtol=1e-5, atol=1e-7)


def test_the_token_that_crosses_top_p_is_kept_and_the_next_is_not():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    assert (probabilities(logits, top_p=0.7) > 0).tolist() == [True, True, False, False]
    assert (probabilities(logits, top_p=0.76) > 0).tolist() == [True, True, True, False]
    assert (probabilities(logits, top_p=0.4) > 0).tolist() == [True, False, False, False]


def test_top_p_is_of_what_top_k_leaves():
    """0.4 and 0.3 are 0.57 and 0.43 after top-k: 0.5 is reached by the first."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert (probabilities(logits, top_p=0.5) > 0).tolist() == [True, True, False, False]
    assert (probabilities(logits, top_k=2, top_p=0.5) > 0).tolist() == [True, False, False, False]


def test_draws_are_the_inverse_of_the_cumulative_distribution():
    weights = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    uniform = torch.tensor([0.0, 0.2, 0.25, 0.5, 0.749, 0.75, LAST])
    assert draw(weights.expand(7, 6), uniform).tolist() == [1, 1, 3, 3, 3, 4, 4]
    assert draw(4 * weights.expand(7, 6), uniform).tolist() == [1, 1, 3, 3, 3, 4, 4], 'only proportions count'


@pytest.mark.parametrize('uniform', [0.0, 1e-30, 0.5, LAST])
@pytest.mark.parametrize('settings', [{}, dict(top_k=7), dict(top_p=0.5), dict(top_k=7, top_p=0.9), dict(min_p=0.2)])
def test_no_uniform_number_draws_what_cannot_be(uniform, settings):
    """Long rows of different magnitude, with the largest rounding of sums; zeros at both ends and in between."""
    generator = torch.Generator().manual_seed(2)
    logits = 8 * torch.randn(64, 4099, generator=generator)
    logits[torch.rand(64, 4099, generator=generator) < 0.5] = -torch.inf
    logits[:, [0, -1]] = -torch.inf
    token = multinomial(logits, torch.full((64,), uniform), **settings)
    assert token.dtype == torch.int64 and (token >= 0).all() and (token < 4099).all()
    assert (probabilities(logits, **settings).gather(1, token[:, None]) > 0).all()


def test_sums_that_fall_by_rounding_do_no_harm(monkeypatch):
    """A parallel scan can return such sums; weights are 0 where sums fall and where they end."""
    sums = torch.tensor([[0.5, 0.4999999, 0.9, 1.0, 0.9999999, 1.0000001]])
    weights = torch.tensor([[0.5, 0.0, 0.4, 0.1, 0.0, 0.0]])
    monkeypatch.setattr(torch.Tensor, 'cumsum', lambda self, axis: sums.clone())
    assert [draw(weights, torch.tensor([number])).item() for number in (0.0, 0.49999995, 0.5, 0.9, LAST)] == [0, 0, 2, 3, 3]


@pytest.mark.parametrize('settings', [{}, dict(temperature=2.0), dict(top_k=4), dict(top_p=0.8), dict(min_p=0.15)])
def test_frequencies_are_the_probabilities(settings):
    """Chi-square with a fixed seed, 20000 draws; the bound is exceeded less than once in a hundred."""
    logits = torch.tensor([1.0, -1.0, 0.5, 2.0, 0.0, -0.5, 1.5])
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(4))
    counts = multinomial(logits.expand(20000, 7), uniform, **settings).bincount(minlength=7)
    expected = 20000 * probabilities(logits, **settings)
    assert not counts[expected == 0].any()
    kept = expected > 0
    assert ((counts - expected) ** 2 / expected)[kept].sum() < 16.8  # 6 degrees of freedom at most


@pytest.mark.parametrize('settings', [{}, dict(top_k=50, top_p=0.9), dict(top_p=0.95), dict(min_p=0.01, temperature=0.8)])
def test_a_row_is_drawn_on_its_own(settings):
    generator = torch.Generator().manual_seed(5)
    logits, uniform = torch.randn(3, 5, 1031, generator=generator), torch.rand(3, 5, generator=generator)
    whole = multinomial(logits, uniform, **settings)
    assert whole.shape == (3, 5)
    for i in range(3):
        for j in range(5):
            assert multinomial(logits[i, j], uniform[i, j], **settings) == whole[i, j]


def test_greedy_is_argmax_and_the_limit_of_everything():
    logits = torch.randn(9, 33, generator=torch.Generator().manual_seed(6))
    uniform = torch.rand(9, generator=torch.Generator().manual_seed(7))
    best = torch.tensor([max(range(33), key=lambda token: row[token]) for row in logits])
    assert torch.equal(greedy(logits, uniform), best)
    for settings in (dict(top_k=1), dict(top_p=1e-9), dict(min_p=1.0), dict(temperature=1e-4)):
        assert torch.equal(multinomial(logits, uniform, **settings), best)


def test_half_precision_is_widened_first():
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(8)).bfloat16()
    uniform = torch.rand(4, generator=torch.Generator().manual_seed(9))
    assert torch.equal(multinomial(logits, uniform, top_p=0.9), multinomial(logits.float(), uniform, top_p=0.9))


@pytest.mark.parametrize('settings', [{}, dict(top_k=2), dict(top_p=0.9), dict(min_p=0.1)])
def test_rows_that_are_no_distribution_give_no_token(settings):
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor([[0.0, 1, 2], [0, nan, 2], [-inf] * 3, [-inf, 0, -inf], [0, -inf, nan]])
    uniform = torch.full((5,), 0.5)
    assert (multinomial(logits, uniform, **settings) >= 0).tolist() == [True, False, False, True, False]
    assert greedy(logits, uniform).tolist() == [2, -1, -1, 1, -1]
    assert multinomial(torch.tensor([0.0, inf, 0]), uniform[0], **settings) == -1
    assert multinomial(logits[3], uniform[0], **settings) == 1


@pytest.mark.parametrize(
    ('settings', 'name'),
    [
        (dict(temperature=0.0), 'temperature'),
        (dict(temperature=-1.0), 'temperature'),
        (dict(temperature=float('nan')), 'temperature'),
        (dict(top_k=-1), 'top_k'),
        (dict(top_k=2.5), 'top_k'),
        (dict(top_p=0.0), 'top_p'),
        (dict(top_p=1.1), 'top_p'),
        (dict(top_p=float('nan')), 'top_p'),
        (dict(min_p=-0.1), 'min_p'),
        (dict(min_p=1.5), 'min_p'),
    ],
)
def test_settings_without_sense_are_refused(settings, name):
    with pytest.raises(ConfigError, match=name):
        multinomial(torch.zeros(3), torch.tensor(0.5), **settings)


def test_samplers_are_built_by_name():
    sampler = VQSamplerRegistry.build(dict(type='Multinomial', top_k=1))
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert sampler(logits, torch.tensor([0.9])).tolist() == [1]
    assert VQSamplerRegistry.build(dict(type='Greedy'))(logits, torch.tensor([0.9])).tolist() == [1]
