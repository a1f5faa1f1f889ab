"""Norms and histograms of parameters and gradients: against numpy, in parts on ranks, and only at their steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.ranks import GlooPool
from tests.runners.support import build_trainer, quiet
from tests.runners.test_backends import events
from tests.runners.test_no_waiting import RARE, WaitError, nobody_waits, open_trainer
from vq.assembly.compose import compose
from vq.core import collectives
from vq.core.errors import ConfigError
from vq.interfaces import Callback
from vq.runners.histograms import Histogram, measure
from vq.runners.journal import read

WATCH = dict(type='WatchCallback', interval=2, bins=8)


class Kept(Callback[Any]):
    """Parameters and gradients at which a step is taken, and the histograms that listeners get."""

    def __init__(self) -> None:
        self.values: dict[int, dict[str, np.ndarray]] = {}
        self.histograms: dict[int, dict[str, Histogram]] = {}

    def before_run(self) -> None:
        self.runner.journal.histogram_listeners.append(lambda step, found: self.histograms.update({step: dict(found)}))

    def optimize(self, name: str) -> None:
        kept = self.values[self.runner.step + 1] = {}
        for parameter, value in self.runner.model.named_parameters():
            if value.grad is not None:
                kept[f'parameter/{parameter}'], kept[f'gradient/{parameter}'] = (
                    value.detach().numpy().copy(),
                    value.grad.numpy(),
                )
                kept[f'gradient/{parameter}'] = kept[f'gradient/{parameter}'].copy()


def agree(found: Histogram, values: np.ndarray) -> None:
    """numpy's counts; values that lie on an edge, up to rounding, may be on either side of it."""
    values = values.astype(np.float64).ravel()
    counts, edges = np.histogram(values, len(found.counts))
    assert found.edges == pytest.approx(edges.tolist(), rel=1e-5, abs=1e-7 * (edges[-1] - edges[0])) and found.count == len(
        values
    )
    near = [int((np.abs(values - edge) <= 1e-5 * (edges[-1] - edges[0])).sum()) for edge in edges[1:-1]]
    apart = np.abs(np.cumsum(found.counts) - np.cumsum(counts))[:-1]
    assert (apart <= near).all(), (found.counts, counts)
    assert found.norm == pytest.approx(math.sqrt((values**2).sum()), rel=1e-5)
    assert found.sum == pytest.approx(values.sum(), rel=1e-4, abs=1e-4 * np.abs(values).sum())


@pytest.mark.slow
def test_a_run_writes_what_numpy_finds(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=5), quiet(WATCH, dict(type='BackendsCallback')))
    kept = trainer.callbacks['kept'] = Kept()
    trainer.run()
    lines = read(tmp_path / 'run/log.jsonl', 'watch')
    assert [line['step'] for line in lines] == [2, 4, 5] == [*kept.histograms]
    learned = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    for line in lines:
        found, values = kept.histograms[line['step']], kept.values[line['step']]
        assert line.keys() == {'step', 'kind', 'gradient_norm', 'parameter_norm'}
        assert {*line['gradient_norm']} <= {*line['parameter_norm']} == learned
        for name, each in found.items():
            kind, _, parameter = name.partition('/')
            assert line[f'{kind}_norm'][parameter] == each.norm
            if name in values:
                agree(each, values[name])
        assert values.keys() <= found.keys()
    name = next(name for name in kept.values[5] if name.startswith('gradient/') and name.endswith('weight'))
    shown = events(tmp_path / 'run/tensorboard')
    assert [event.step for event in shown.Histograms(name)] == [2, 4, 5]
    last = shown.Histograms(name)[-1].histogram_value
    assert last.num == kept.histograms[5][name].count and sum(last.bucket) == last.num
    norms = [event.value for event in shown.Scalars('watch/gradient_norm/' + name.partition('/')[2])]
    assert norms == pytest.approx([kept.histograms[step][name].norm for step in (2, 4, 5)])


def test_values_on_edges_and_those_that_are_not_finite() -> None:
    values = torch.tensor([0.0, *(place + 0.5 for place in range(8)), 8.0])
    parts = {
        'even': values,
        'broken': torch.tensor([1.0, math.inf, -math.inf, math.nan, 3.0]),
        'same': torch.full((3, 2), 4.0),
        'lost': torch.full((2,), math.nan),
        'none': torch.empty(0),
        'huge': torch.tensor([-3e38, 3e38]),
    }
    found = measure(parts, 8, joined=False).read()
    assert [*found] == ['even', 'broken', 'same', 'lost', 'huge']
    assert found['even'].counts == (2, 1, 1, 1, 1, 1, 1, 2) and found['even'].edges == [*range(9)]
    assert found['even'].norm == pytest.approx(math.sqrt(sum((place + 0.5) ** 2 for place in range(8)) + 64))
    broken = found['broken']
    assert (broken.low, broken.high, broken.count, broken.not_finite) == (1, 3, 2, 3) and broken.norm == pytest.approx(10**0.5)
    assert (found['same'].low, found['same'].high, sum(found['same'].counts)) == (3.5, 4.5, 6)
    assert (found['lost'].count, found['lost'].not_finite, found['lost'].norm) == (0, 2, 0)
    assert sum(found['huge'].counts) == 2


def parts_of(rank: int | None) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    whole = {'wide': torch.randn(7, 5, generator=draw), 'row': torch.randn(1, 4, generator=draw)}
    whole['wide'][6, 4] = math.nan
    return whole if rank is None else {name: value.chunk(2)[rank] if rank < len(value.chunk(2)) else value[:0]
                                       for name, value in whole.items()}  # fmt: skip


def measured_on_a_rank() -> dict[str, Histogram]:
    return measure(parts_of(collectives.rank()), 6, joined=True).read()


@pytest.mark.slow
def test_parts_on_two_ranks_are_measured_as_one(gloo_pool: GlooPool) -> None:
    first, second = gloo_pool.run(in_a_group)
    alone = measure(parts_of(None), 6, joined=False).read()
    assert first == second and first.keys() == alone.keys()
    for name, each in alone.items():
        found = first[name]
        assert (found.low, found.high, found.counts, found.not_finite) == (each.low, each.high, each.counts, each.not_finite)
        assert (found.sum, found.norm) == pytest.approx((each.sum, each.norm), rel=1e-5)


def in_a_group() -> dict[str, Histogram]:
    from vq.strategies.ddp import DDPStrategy

    strategy = DDPStrategy('cpu')
    strategy.start()
    try:
        return measured_on_a_rank()
    finally:
        strategy.stop()


def watched(folder: str, strategy: str) -> list[dict[str, Any]]:
    """The lines of a run on two ranks."""
    trainer = build_trainer(Path(folder) / strategy, dict(iters=2, strategy=strategy), quiet(dict(WATCH, interval=1)))
    trainer.run()
    return read(Path(folder) / strategy / 'run/log.jsonl', 'watch')


@pytest.mark.slow
def test_two_ranks_write_once_and_parts_have_the_norms_of_the_whole(tmp_path: Path, gloo_pool: GlooPool) -> None:
    whole, _ = gloo_pool.run(watched, str(tmp_path), 'ddp')
    parts, _ = gloo_pool.run(watched, str(tmp_path), 'fsdp')
    assert [line['step'] for line in whole] == [line['step'] for line in parts] == [1, 2]
    for line, other in zip(whole, parts, strict=True):
        for kind in ('gradient_norm', 'parameter_norm'):
            assert len(line[kind]) > 10 and other[kind] == pytest.approx(line[kind], rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_the_host_waits_at_its_steps_alone(tmp_path: Path) -> None:
    trainer = open_trainer(tmp_path, lambda folder: compose('configs/digits/fsq.py', {'watch': 7}, {}, tiny=True), 'cpu')
    (watch,) = (callback for callback in trainer.callbacks.values() if type(callback).__name__ == 'WatchCallback')
    assert watch.interval == RARE
    with nobody_waits(trainer.strategy.device):
        trainer.train_step()
    watch.interval = 1
    with pytest.raises(WaitError), nobody_waits(trainer.strategy.device):
        trainer.train_step()
    trainer._call('after_run')


def test_configs_of_energy_watch_once_an_epoch() -> None:
    for name in ('base_energy', 'xlarge_standard'):
        config = compose(f'energy/{name}_imagenet_ddp.py', {}, {}, tiny=False)
        assert config.trainer.callbacks['watch'] == {'type': 'WatchCallback', 'interval': 5004}
    assert 'watch' not in compose('energy/digits.py', {}, {}, tiny=False).trainer.callbacks


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for settings in (dict(interval=0), dict(bins=0)):
        with pytest.raises(ConfigError, match='WatchCallback has'):
            build_trainer(tmp_path, {}, quiet(dict(type='WatchCallback', **settings)))


def test_gradients_alone(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dict(iters=1), quiet(dict(type='WatchCallback', of='gradients')))
    trainer.run()
    (line,) = read(tmp_path / 'run/log.jsonl', 'watch')
    assert line.keys() == {'step', 'kind', 'gradient_norm'}
