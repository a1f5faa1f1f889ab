"""Initialization of a codebook with k-means centres of the features: the new codes, and unchanged state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ranks import GlooPool
from tests.runners.codebook_runs import encoded, make, resumed, run
from tests.runners.support import assert_same
from vq.core.errors import ConfigError, UserError
from vq.runners.journal import read

START = dict(type='KMeansInitCallback', batches=2, iterations=80)
QUICK = dict(type='KMeansInitCallback', batches=2, iterations=3)
SAVE = dict(type='CheckpointCallback', interval=2)


def start_of(folder: Path, kind: str, *callbacks: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    """The quantizer's state before the first step, and the features of the first two batches under the same encoder."""
    trainer = make(folder, kind, *callbacks, iters=2)
    trainer.run()
    fresh = make(folder / 'fresh', kind)
    return trainer.callbacks['watch'].start, encoded(fresh, trainer.callbacks['watch'].ids)


def assert_centres(rows: Tensor, codes: Tensor) -> None:
    """Assert that Lloyd's algorithm has converged: every code is the mean of the features nearest to it."""
    tokens = torch.cdist(rows.double(), codes.double()).argmin(1)
    assert len(tokens.unique()) == len(codes)
    means = torch.stack([rows[tokens == code].mean(0) for code in range(len(codes))])
    torch.testing.assert_close(codes, means, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_codes_are_means_of_features(tmp_path: Path) -> None:
    state, rows = start_of(tmp_path, 'gradient', START)
    assert_centres(rows, state['codebook.weight'])


@pytest.mark.slow
def test_unit_codes_are_mean_directions_and_angles_bring_their_own_lengths(tmp_path: Path) -> None:
    state, rows = start_of(tmp_path / 'normalized', 'normalized', START)
    codes = state['codebook.weight']
    tokens = (F.normalize(rows, dim=1) @ codes.t()).argmax(1)
    means = torch.stack([F.normalize(rows, dim=1)[tokens == code].mean(0) for code in range(32)])
    torch.testing.assert_close(codes, F.normalize(means, dim=1), rtol=1e-4, atol=1e-5)
    state, _ = start_of(tmp_path / 'cosine', 'cosine', START)
    lengths = torch.stack([rows[tokens == code].mean(0) for code in range(32)])
    torch.testing.assert_close(F.normalize(state['codebook.weight'], dim=1), codes, rtol=1e-4, atol=1e-5)
    along = (lengths * codes).sum(1)
    torch.testing.assert_close(state['codebook.weight'].norm(dim=1), along, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_stages_are_fitted_one_after_the_other_and_their_updates_begin_there(tmp_path: Path) -> None:
    state, rows = start_of(tmp_path, 'residual', START)
    for stage in range(2):
        codes = state[f'parts.{stage}.codebook.weight']
        assert_centres(rows, codes)
        rows = rows - codes[torch.cdist(rows, codes).argmin(1)]
        assert torch.equal(state[f'parts.{stage}.codebook_update.sums'], codes)
        assert torch.equal(state[f'parts.{stage}.codebook_update.count'], torch.ones(32))


@pytest.mark.parametrize('kind', ['shared', 'multi_scale', 'grouped'])
def test_quantizers_of_several_tokens(tmp_path: Path, kind: str) -> None:
    """A codebook with several uses is fitted use after use; a part without a codebook is skipped."""
    trainer = make(tmp_path, kind, QUICK, iters=1)
    trainer.run()
    lines = read(trainer.journal.path, 'kmeans')
    assert len(lines) == {'shared': 2, 'multi_scale': 3, 'grouped': 1}[kind]  # of four scales, the first has too few cells
    assert all(line['after'] < line['before'] and line['used'] == 32 for line in lines)
    assert lines[-1]['features'] == 16 * {'shared': 2 * 256, 'multi_scale': 1 + 4 + 16 + 256, 'grouped': 256}[kind]


@pytest.mark.slow
def test_batches_and_random_numbers_are_those_of_a_run_without(tmp_path: Path) -> None:
    plain, ours = make(tmp_path / 'plain', 'gradient'), make(tmp_path / 'ours', 'gradient', QUICK)
    for trainer in (plain, ours):
        trainer.run()
    without, watch = plain.callbacks['watch'], ours.callbacks['watch']
    assert without.ids == watch.ids
    assert without.random == watch.random
    assert not torch.equal(without.start['codebook.weight'], watch.start['codebook.weight'])


def test_moving_averages_start_there_too(tmp_path: Path) -> None:
    trainer = make(tmp_path, 'ema', QUICK, dict(type='EMACallback', decay=0.999, warmup=False), iters=1)
    trainer.run()
    watch, average = trainer.callbacks['watch'], trainer.callbacks['ema'].shadow
    for name in ('codebook.weight', 'codebook_update.sums'):
        start, end = watch.start[name], watch.states[0][name]
        torch.testing.assert_close(average[f'tokenizer.quantizer.{name}'], 0.999 * start + 0.001 * end)


@pytest.mark.slow
@pytest.mark.parametrize(('delay', 'step'), [(0, 2), (2, 2), (3, 2)])
def test_a_resumed_run_starts_no_codebook_twice(tmp_path: Path, delay: int, step: int) -> None:
    """A resumed run does not initialize again. A run resumed at or before ``delay`` still does the k-means."""
    callbacks = ({**QUICK, 'delay': delay}, dict(type='EMACallback'), SAVE)
    straight, first, second = (make(tmp_path / name, 'ema', *callbacks) for name in ('straight', 'broken', 'broken'))
    straight.run()
    first.iters = None
    first._length = (step, None, None)
    first.run()
    resumed(second, first.work_dir, step).run()
    assert_same(straight.callbacks['watch'].states[step:], second.callbacks['watch'].states)
    assert read(straight.journal.path, 'kmeans') == read(second.journal.path, 'kmeans')
    assert [line['step'] for line in read(second.journal.path, 'kmeans')] == [delay + 1]


def test_loaded_weights_keep_their_codebook_unless_asked(tmp_path: Path) -> None:
    for after_loading in (False, True):
        trainer = make(tmp_path / str(after_loading), 'gradient', {**QUICK, 'after_loading': after_loading}, iters=1)
        trainer.context.meta['loaded'] = 'weights'
        trainer.run()
        assert len(read(trainer.journal.path, 'kmeans') if trainer.journal.path.exists() else []) == after_loading


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='FiniteScalarQuantizer has no codebook') as caught:
        make(tmp_path, 'none', QUICK).run()
    assert 'VectorQuantizer' in caught.value.hint
    trainer = make(tmp_path, 'gradient', {**QUICK, 'batches': 1}, batch_size=1)
    trainer.model.tokenizer.quantizer.codebook_size = 1000
    with pytest.raises(UserError, match=r'1000 codes of .* saw 256 features in 1 batches') as few:
        trainer.run()
    assert 'batches=4 or more' in few.value.hint


@pytest.mark.slow
def test_a_compiled_quantizer_is_looked_into_all_the_same(tmp_path: Path) -> None:
    settings = dict(type='BaseStrategy', compile=dict(backend='eager', parts=('tokenizer.quantizer',)))
    callbacks = (QUICK, dict(type='ReinitCallback', iterations=1, source='features', least=50))
    trainers = [make(tmp_path / str(index), 'residual', *callbacks, strategy=s) for index, s in enumerate((None, settings))]
    for trainer in trainers:
        trainer.run()
    assert trainers[1].model.tokenizer.quantizer._compiled_call_impl is not None
    assert_same(trainers[0].callbacks['watch'].states, trainers[1].callbacks['watch'].states)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'strategy'), [('residual', 'DDPStrategy'), ('normalized', 'DDPStrategy'), ('ema', 'FSDPStrategy')]
)
def test_ranks_start_alike_and_where_one_process_would(tmp_path: Path, gloo_pool: GlooPool, kind: str, strategy: str) -> None:
    callbacks = [QUICK, dict(type='EMACallback')]
    first, second = gloo_pool.run(run, str(tmp_path / 'two'), kind, callbacks, strategy, {})
    alone = run(str(tmp_path / 'one'), kind, callbacks, 'BaseStrategy', dict(batch_size=16))
    for key, value in first['start'].items():
        torch.testing.assert_close(value, alone['start'][key], rtol=1e-4, atol=1e-5)
    for name in ('start', 'states', 'shadow'):
        assert_same(first[name], second[name])
