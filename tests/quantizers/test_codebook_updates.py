"""Codebook updates: unchanged state, gradient accumulation, restarts."""

from __future__ import annotations

import pytest
import torch

from vq.core import collectives
from vq.quantizers.updates.draw import join, priorities, split
from vq.quantizers.updates.ema import EMAUpdate
from vq.quantizers.updates.observations import Observations
from vq.quantizers.updates.restart import Restart, RestartUnused
from vq.quantizers.vector import VectorQuantizer

NUMBER = torch.tensor(0)


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in (*module.named_parameters(), *module.named_buffers())}


def assert_unchanged(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
    for name, value in snapshot(module).items():
        assert torch.equal(value, before[name]), name


def test_a_bad_step_changes_nothing_and_is_forgotten(updated, make):
    quantizer = make(updated).train()
    quantizer(torch.randn(50, 5))
    quantizer.update(torch.tensor(True))
    before = snapshot(quantizer)
    quantizer(torch.full((50, 5), float('nan')))
    quantizer.update(torch.tensor(False))
    assert_unchanged(quantizer, before)  # the accumulators included: they are empty again


def test_a_good_step_changes_codes(updated, make):
    quantizer = make(updated).train()
    before = quantizer.codebook.weight.detach().clone()
    for _ in range(3):
        quantizer(torch.randn(50, 5))
        quantizer.update(torch.tensor(True))
    assert not torch.equal(before, quantizer.codebook.weight)


def test_no_observation_changes_nothing(updated, make):
    quantizer = make(updated).train()
    quantizer(torch.randn(50, 5))
    quantizer.update()
    before = snapshot(quantizer)
    quantizer.update()
    assert_unchanged(quantizer, before)


@pytest.mark.slow
@pytest.mark.parametrize('parts', [2, 5])
def test_accumulation_does_not_change_the_update(updated, make, parts):
    whole, pieces = make(updated).train(), make(updated).train()
    for step in range(12):
        features = torch.randn(40, 5, generator=torch.Generator().manual_seed(step))
        whole(features)
        for chunk in features.chunk(parts):
            pieces(chunk)
        whole.update()
        pieces.update()
        for ours, theirs in zip(snapshot(whole).values(), snapshot(pieces).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_codes_that_were_set_from_outside_begin_at_the_mean(updated, make):
    """For any state per code: rows of replaced codes have the mean, or follow the new code; other rows stay."""
    quantizer = make(updated).train()
    for _ in range(3):
        quantizer(torch.randn(50, 5))
        quantizer.update()
    before = snapshot(quantizer)
    rows = torch.arange(37) % 4 == 1
    codes = torch.where(rows[:, None], torch.randn(37, 5), quantizer.codebook.weight.detach())
    with torch.no_grad():
        quantizer.codebook.weight.copy_(codes)
    quantizer.codebook_update.restarted(quantizer.codebook.weight, rows)
    after = snapshot(quantizer)
    for name in ('codebook_update.count', 'codebook_update.probability'):
        if name in before:
            assert torch.equal(after[name][~rows], before[name][~rows])
            torch.testing.assert_close(after[name][rows], before[name].mean().expand(int(rows.sum())))
    if 'codebook_update.sums' in before:
        assert torch.equal(after['codebook_update.sums'][~rows], before['codebook_update.sums'][~rows])
        torch.testing.assert_close(
            after['codebook_update.sums'],
            torch.where(rows[:, None], codes * after['codebook_update.count'][:, None], before['codebook_update.sums']),
        )
    quantizer(torch.randn(50, 5))
    quantizer.update()
    assert all(value.isfinite().all() for name, value in snapshot(quantizer).items() if not name.endswith('cost'))


class Recorder:
    """A back end of two ranks with equal data; counts the collectives."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.calls = []

    def all_reduce(self, value, operation):
        self.calls.append((operation, value.numel()))
        return value * 2 if operation == 'sum' else value


def test_collectives_per_update(updated, make):
    """One for any number of micro-batches; two for CVQ with its anchors."""
    kinds = {'cvq_cached': ['sum', 'sum']}
    quantizer = make(updated).train()
    recorder = Recorder()
    collectives.install(recorder)
    try:
        for _ in range(3):
            quantizer(torch.randn(20, 5))
        assert not recorder.calls
        quantizer.update()
    finally:
        collectives.install(None)
    expected = kinds.get(updated, ['min', 'sum'] if 'cvq' in updated else ['sum'])
    assert [operation for operation, _ in recorder.calls] == expected


@pytest.mark.slow
def test_ema_smoothing_keeps_the_total_and_finds_means():
    """After many equal steps every code is the mean of its vectors."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(6, 2, init='normal', update=EMAUpdate(decay=0.5)).train()
    features = torch.randn(300, 2)
    for _ in range(200):
        tokens = quantizer(features).tokens
        quantizer.update()
    for code in tokens.unique():
        mean = features[tokens == code].double().mean(0).float()
        torch.testing.assert_close(quantizer.codebook.weight[code], mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quantizer.codebook_update.count.sum(), torch.tensor(300.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize('kind', ['ema', 'gradient'])
def test_dead_codes_move_to_observed_vectors(kind):
    """Two codes are near the data; of the others, the two least used restart, and no other code moves."""
    options = dict(threshold=0.5, candidates=2, seed=7)
    update = EMAUpdate(decay=0.0, restart=Restart(**options)) if kind == 'ema' else RestartUnused(decay=0.0, **options)
    quantizer = VectorQuantizer(5, 2, update=update).train()
    with torch.no_grad():
        quantizer.codebook.weight.copy_(torch.tensor([[9.0, 9], [0, 0], [8, 8], [1, 1], [7, 7]]))
    features = torch.rand(30, 2)
    before = quantizer.codebook.weight.detach().clone()
    tokens = quantizer(features).tokens
    assert set(tokens.tolist()) == {1, 3}
    quantizer.update()
    codes, count = quantizer.codebook.weight.detach(), update.count
    for restarted in (0, 2):  # equally unused: in order
        assert (features == codes[restarted]).all(1).any()
        assert count[restarted] == 30 / 5
    assert not torch.equal(codes[0], codes[2])
    if kind == 'gradient':
        assert torch.equal(codes[[1, 3, 4]], before[[1, 3, 4]])
    assert count[4] == 0
    if kind == 'ema':
        torch.testing.assert_close(update.sums[0], codes[0] * count[0])


@pytest.mark.slow
def test_restarts_wake_a_dead_codebook():
    """Data far from all codes: without restarts one code takes everything."""

    def codes_used(restart):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(32, 4, update=EMAUpdate(decay=0.9, restart=restart)).train()
        for _ in range(60):
            quantizer(torch.randn(256, 4) + 3)
            quantizer.update()
        return len(quantizer.eval()(torch.randn(2000, 4) + 3).tokens.unique())

    assert codes_used(None) < 8
    assert codes_used(Restart(candidates=8)) == 32


def test_fewer_vectors_than_candidates():
    quantizer = VectorQuantizer(20, 3, update=RestartUnused(threshold=0.9, decay=0.0, candidates=50)).train()
    before = quantizer.codebook.weight.detach().clone()
    features = torch.randn(4, 3)
    quantizer(features)
    quantizer.update()
    moved = (quantizer.codebook.weight != before).any(1)
    assert 0 < moved.sum() <= 4
    assert all((features == code).all(1).any() for code in quantizer.codebook.weight[moved])


def draw(number: int, seed: int = 0, places: int = 4096, keep: int = 16) -> list[int]:
    return priorities(torch.arange(places), seed, torch.tensor(number)).topk(keep).indices.tolist()


def test_priorities_are_distinct_and_in_range():
    for start in (0, 2**24 - 1000, 2**40):
        drawn = priorities(torch.arange(start, start + 200_000), 3, NUMBER)
        assert len(drawn.unique()) == 200_000
        assert drawn.min() >= 1
        assert drawn.max() <= 2**48


def test_draws_differ_by_step_and_seed_and_are_even():
    assert draw(0) == draw(0)
    assert len({tuple(draw(number)) for number in range(50)}) == 50
    assert draw(0) != draw(0, seed=1)
    # 3200 draws over 16 equal stretches: 200 each, standard deviation below 14
    counts = torch.bincount(torch.tensor([place // 256 for number in range(200) for place in draw(number)]), minlength=16)
    assert ((counts - 200).abs() < 70).all()
    # neighbouring places are drawn together no more often than by chance: 200 * 16 * 15 / 4096 = 11.7 pairs
    pairs = sum(place + 1 in set(chosen) for number in range(200) for chosen in [draw(number)] for place in chosen)
    assert pairs < 35


def test_halves_of_priorities_are_exact_in_fp32():
    values = torch.tensor([0, 1, 2**24 - 1, 2**24, 2**47 + 12345, 2**48 - 1, 2**48])
    assert torch.equal(join(split(values)), values)


@pytest.mark.parametrize('pieces', [(90,), (30, 30, 30), (10,) * 9])
def test_draw_does_not_depend_on_the_cut(pieces):
    codebook, features = torch.zeros(5, 3), torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    whole, cut = (Observations(codebook, with_sums=True, candidates=7, seed=11) for _ in range(2))
    tokens = torch.randint(5, (90,))
    whole.add(features, tokens)
    for part, part_tokens in zip(features.split(list(pieces)), tokens.split(list(pieces)), strict=True):
        cut.add(part, part_tokens)
    ours, theirs = whole.collect(), cut.collect()
    assert torch.equal(ours.candidates, theirs.candidates)
    assert torch.equal(ours.counts, theirs.counts)
    torch.testing.assert_close(ours.sums, theirs.sums)
    assert ours.valid.all()
