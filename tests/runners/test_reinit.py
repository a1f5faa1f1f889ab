"""Reinitialization of unused codes: which codes, with which values, equal on all ranks, and without host syncs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ranks import GlooPool
from tests.runners.codebook_runs import encoded, make, resumed, run
from tests.runners.support import assert_same
from tests.runners.test_no_waiting import nobody_waits
from vq.core.errors import ConfigError
from vq.interfaces import Callback
from vq.quantizers.updates.reinitialize import from_codes, from_features
from vq.runners.callbacks.reinit import ReinitCallback
from vq.runners.journal import read

EVERY_TWO = dict(type='ReinitCallback', iterations=2)
SAVE = dict(type='CheckpointCallback', interval=4)


class Spoil(Callback):
    """Before the first step: move codes from 16 on away from all features."""

    def before_step(self) -> None:
        if self.runner.step == 0:
            quantizer = self.runner.model.tokenizer.quantizer
            with torch.no_grad():
                for part in getattr(quantizer, 'parts', [quantizer]):
                    part.codebook.weight[16:] = 1e3
                    if part.codebook_update is not None:
                        part.codebook_update.reset(part.codebook.weight.detach())


class Moments(Callback):
    """Records Adam's moments of the codebook after every step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def after_step(self) -> None:
        weight = self.runner.model.tokenizer.quantizer.codebook.weight
        state = self.runner.optimizers['tokenizer'].state[weight]
        self.seen.append(torch.stack([state['exp_avg'], state['exp_avg_sq']]).clone())


def spoilt(folder: Path, kind: str, *callbacks: dict[str, Any], **options: Any) -> Any:
    trainer = make(folder, kind, *callbacks, **options)
    trainer.callbacks = {'spoil': Spoil(), **trainer.callbacks}
    return trainer


def test_unused_codes_become_used_ones_moved_a_little(tmp_path: Path) -> None:
    trainer = spoilt(tmp_path, 'gradient', EVERY_TWO, iters=3)
    trainer.callbacks['moments'] = Moments()
    trainer.run()
    (_, after, _), (_, moments, _) = trainer.callbacks['watch'].states, trainer.callbacks['moments'].seen
    codes = after['codebook.weight']
    assert codes.abs().max() < 10
    changed = (moments == 0).all(0).all(1)  # moments of a code that was never used are zero as well
    assert changed[16:].all() and not changed.all()
    for code in codes[16:]:
        distance = (codes[~changed] - code).norm(dim=1) / codes[~changed].norm(dim=1)
        assert 0 < distance.min() < 0.05
    assert read(trainer.journal.path, 'reinit') == [
        {'step': 2, 'kind': 'reinit', 'quantizer': 'tokenizer.quantizer', 'codes': int(changed.sum())}
    ]


def test_moments_of_a_code_that_was_used_before_are_forgotten(tmp_path: Path) -> None:
    trainer = make(tmp_path, 'gradient', {**EVERY_TWO, 'source': 'features', 'least': 10**9}, iters=3)
    trainer.callbacks['moments'] = Moments()
    trainer.run()
    first, second, third = trainer.callbacks['moments'].seen
    assert (first != 0).any() and (third != 0).any()
    assert (second == 0).all()
    assert not torch.equal(*[state['codebook.weight'] for state in trainer.callbacks['watch'].states[:2]])


def test_ema_statistics_start_again_at_the_mean(tmp_path: Path) -> None:
    average = dict(type='EMACallback', decay=0.999, warmup=False)
    trainer = spoilt(tmp_path, 'ema', EVERY_TWO, average, iters=3)
    trainer.run()
    before, state, _ = trainer.callbacks['watch'].states
    codes, sums, count = (state[name] for name in ('codebook.weight', 'codebook_update.sums', 'codebook_update.count'))
    assert (before['codebook.weight'][16:] > 500).all()
    torch.testing.assert_close(sums[16:], codes[16:] * count[16:, None])
    assert len(count[16:].unique()) == 1
    shadow = trainer.callbacks['ema'].shadow['tokenizer.quantizer.codebook.weight']
    assert shadow[16:].abs().max() < 10


def test_features_are_those_of_the_last_batch_as_the_encoder_makes_them_now(tmp_path: Path) -> None:
    trainer = spoilt(tmp_path, 'gradient', {**EVERY_TWO, 'source': 'features'}, iters=3)

    class Compare(Callback):
        def after_step(self) -> None:
            if self.runner.step == 2:
                rows = encoded(self.runner, self.runner.callbacks['watch'].ids[1:2])
                codes = self.runner.model.tokenizer.quantizer.codebook.weight[16:]
                assert torch.cdist(codes.double(), rows.double()).min(1).values.max() < 1e-5
                assert len(codes.unique(dim=0)) == 16
                self.seen = True

    trainer.callbacks['compare'] = Compare()
    trainer.run()
    assert trainer.callbacks['compare'].seen
    assert trainer.callbacks['watch'].ids == batches_of(tmp_path / 'plain')


def batches_of(folder: Path) -> list[list[str]]:
    trainer = make(folder, 'gradient', iters=3)
    trainer.run()
    return trainer.callbacks['watch'].ids


def test_donors_are_drawn_by_their_usage() -> None:
    """8000 unused codes, three donors with counts 1, 2 and 5: chi-square within six sigma."""
    codebook = torch.randn(8003, 2)
    counts = torch.zeros(8003, dtype=torch.int64)
    counts[[5, 100, 8002]] = torch.tensor([1, 2, 5])
    codes, changed = from_codes(codebook, counts, counts == 0, 0.0, 'test', 1)
    assert changed.sum() == 8000 and torch.equal(codes[~changed], codebook[~changed])
    drawn = torch.stack([(codes[changed] == codebook[donor]).all(1).sum() for donor in (5, 100, 8002)])
    assert drawn.sum() == 8000
    expected = 1000.0 * torch.tensor([1, 2, 5])
    assert ((drawn - expected).square() / expected).sum() < 2 + 6 * 2
    noisy, _ = from_codes(codebook, counts, counts == 0, 0.1, 'test', 1)
    scale = codes[changed].square().mean(1, keepdim=True).sqrt()  # of the donors, in the order of the first draw
    assert ((noisy - codes)[changed] / scale).std().item() == pytest.approx(0.1, rel=0.05)
    again, _ = from_codes(codebook, counts, counts == 0, 0.1, 'test', 2)
    assert not torch.equal(noisy, again)
    none, changed = from_codes(codebook, torch.zeros_like(counts), counts >= 0, 0.1, 'test', 1)
    assert torch.equal(none, codebook) and not changed.any()


def test_fewer_features_than_unused_codes() -> None:
    unused = torch.tensor([True, False, True, True])
    there = torch.tensor([True, True, False, False])
    codes, changed = from_features(torch.zeros(4, 2), torch.arange(1.0, 9.0).view(4, 2), there, unused)
    assert changed.tolist() == [True, False, True, False]
    assert codes.tolist() == [[1, 2], [0, 0], [3, 4], [0, 0]]


@pytest.mark.parametrize(
    ('given', 'batch_size', 'expected'),
    [
        (dict(iterations=3), 16, [3, 6, 9]),
        (dict(epochs=1), 40, [3, 5, 8, 10]),
        (dict(epochs=0.5), 40, [2, 3, 4, 5, 7, 8, 9, 10]),
    ],
)
def test_when(given: dict[str, Any], batch_size: int, expected: list[int]) -> None:
    """100 samples, 40 per step: epochs end in the steps 3, 5, 8, 10. Nothing happens in the last step."""
    callback = ReinitCallback(**given)
    seen = []
    for step in range(1, 12):
        runner = SimpleNamespace(step=step - 1, samples_seen=(step - 1) * batch_size, batch_size=batch_size, iters=11)
        runner.dataset = range(100)
        callback.runner = runner
        coming = callback._due(step)
        runner.step, runner.samples_seen = step, step * batch_size
        assert callback._due(step) == coming
        seen += [step] * coming
    assert seen == expected


@pytest.mark.slow
@pytest.mark.parametrize('source', ['codes', 'features'])
@pytest.mark.parametrize('kind', ['gradient', 'residual', 'multi_scale'])
def test_a_resumed_run_goes_on_to_the_same_bits(tmp_path: Path, kind: str, source: str) -> None:
    """Stopped at step 4, between the reinitializations of the steps 3 and 6, with counts in the checkpoint."""
    callbacks = (dict(type='ReinitCallback', iterations=3, source=source, least=3), dict(type='EMACallback'), SAVE)
    straight, first, second = (make(tmp_path / name, kind, *callbacks, iters=8) for name in ('straight', 'broken', 'broken'))
    straight.run()
    first._length = (4, None, None)
    first.run()
    resumed(second, first.work_dir, 4).run()
    assert_same(straight.callbacks['watch'].states[4:], second.callbacks['watch'].states)
    assert_same(straight.callbacks['ema'].shadow, second.callbacks['ema'].shadow)
    assert read(straight.journal.path, 'reinit') == read(second.journal.path, 'reinit')
    assert sum(line['codes'] for line in read(second.journal.path, 'reinit')) > 0


@pytest.mark.parametrize('source', ['codes', 'features'])
def test_nobody_waits_in_other_steps(tmp_path: Path, source: str) -> None:
    trainer = make(tmp_path, 'residual', {**EVERY_TWO, 'source': source}, iters=10)
    del trainer.callbacks['watch']
    trainer.setup()
    with trainer.open_loader() as loader:
        trainer.batches = iter([next(loader) for _ in range(3)])
    trainer.train_step()
    trainer.train_step()
    with nobody_waits(trainer.strategy.device):
        trainer.train_step()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (dict(), 'every None'),
        (dict(epochs=1, iterations=5), 'every 1 epochs and 5'),
        (dict(iterations=0), 'every'),
        (dict(epochs=1, source='noise'), "source is 'noise'"),
        (dict(epochs=1, least=0), 'least is 0'),
    ],
)
def test_bad_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ReinitCallback(**given)
    assert caught.value.hint


def test_quantizers_without_a_codebook_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='FiniteScalarQuantizer has no codebook'):
        make(tmp_path, 'none', EVERY_TWO).run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'source', 'strategy'),
    [
        ('gradient', 'codes', 'DDPStrategy'),
        ('residual', 'features', 'DDPStrategy'),
        ('ema', 'codes', 'FSDPStrategy'),
        ('gradient', 'features', 'FSDPStrategy'),
    ],
)
def test_ranks_agree_to_the_bit_after_every_step(
    tmp_path: Path, gloo_pool: GlooPool, kind: str, source: str, strategy: str
) -> None:
    """Counts are sums over both ranks: the first step reinitializes the same codes as one process with both batches."""
    callbacks = [dict(type='ReinitCallback', iterations=1, source=source, least=8), dict(type='EMACallback')]
    first, second = gloo_pool.run(run, str(tmp_path / 'two'), kind, callbacks, strategy, {})
    for name in ('states', 'shadow'):
        assert_same(first[name], second[name])
    lines = read(tmp_path / 'two' / 'run' / 'log.jsonl', 'reinit')
    run(str(tmp_path / 'one'), kind, callbacks, 'BaseStrategy', dict(batch_size=16))
    assert lines[0] == read(tmp_path / 'one' / 'run' / 'log.jsonl', 'reinit')[0]
    assert lines[0]['codes'] > 0
