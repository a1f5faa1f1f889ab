"""2N steps are bitwise equal to N steps, ``kill -9`` during step N + 1, ``--auto-resume`` and the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranks import GlooPool
from tests.runners.gan import write_gan_config
from tests.runners.support import assert_same, everything, logged, samples, train, write_config
from tests.runners.support import start as start_process

pytestmark = pytest.mark.slow


def options(**values: object) -> list[str]:
    return [
        '--config-options',
        *(f'{name}::{value}' if isinstance(value, str) else f'{name}:{value}' for name, value in values.items()),
    ]


def compare(folder: Path, ranks: int) -> None:
    straight, broken = folder / 'work_dirs/straight', folder / 'work_dirs/broken'
    assert_same(everything(straight / 'checkpoints/iter_8'), everything(broken / 'checkpoints/iter_8'))
    assert logged(straight) == logged(broken)
    for rank in range(ranks):
        assert samples(straight, rank) == samples(broken, rank)
        assert len(samples(straight, rank)) == 8


def run(pool: GlooPool, folder: Path, ranks: int, *arguments: str) -> None:
    """One undisturbed command, in this process or on the ranks of the pool."""
    codes = pool.run(train, str(folder), *arguments) if ranks > 1 else [train(str(folder), *arguments)]
    assert codes == [0] * ranks


@pytest.mark.parametrize(('ranks', 'workers', 'workers_after'), [(1, 2, 2), (1, 0, 1), (2, 0, 0)])
def test_killed_run_ends_with_the_same_bits(
    tmp_path: Path, gloo_pool: GlooPool, ranks: int, workers: int, workers_after: int
) -> None:
    config = str(write_config(tmp_path))
    strategy = 'ddp' if ranks > 1 else 'base'
    run(gloo_pool, tmp_path, ranks, 'straight', config, *options(num_workers=workers, strategy=strategy))
    # step 6 is killed: the checkpoint is of step 4, and the log interval (3) is open there
    killed = start_process(
        tmp_path,
        'broken',
        config,
        *options(num_workers=workers, strategy=strategy, kill_at=6, kill_rank=ranks - 1),
        ranks=ranks,
    )
    assert killed.returncode != 0
    assert (tmp_path / 'work_dirs/broken/checkpoints/iter_4/COMPLETE').exists(), killed.stderr
    assert not (tmp_path / 'work_dirs/broken/checkpoints/iter_8').exists()
    run(gloo_pool, tmp_path, ranks, 'broken', config, '--auto-resume', *options(num_workers=workers_after, strategy=strategy))
    assert f'resumed {Path("work_dirs/broken/checkpoints/iter_4")}' in (tmp_path / 'work_dirs/broken/log.txt').read_text()
    compare(tmp_path, ranks)


def test_a_signal_ends_the_step_writes_a_checkpoint_and_the_rest_follows(tmp_path: Path, gloo_pool: GlooPool) -> None:
    config = str(write_config(tmp_path))
    run(gloo_pool, tmp_path, 1, 'straight', config)
    asked = start_process(tmp_path, 'broken', config, *options(kill_at=6, kill_signal=15))
    assert asked.returncode == 1, asked.stderr
    assert asked.stderr.strip().splitlines()[-1] == 'Go on with the same command and --auto-resume.'
    assert (tmp_path / 'work_dirs/broken/checkpoints/iter_6/COMPLETE').exists()
    run(gloo_pool, tmp_path, 1, 'broken', config, '--auto-resume')
    compare(tmp_path, 1)


@pytest.mark.parametrize(('start', 'ranks'), [(5, 1), (3, 1), (3, 2)])
def test_killed_adversarial_run_ends_with_the_same_bits(tmp_path: Path, gloo_pool: GlooPool, start: int, ranks: int) -> None:
    """The checkpoint (step 4) is before or after the discriminator's first step: weights, both optimizers, LeCam, running
    statistics, EMA. The kill is in step 6."""
    config, strategy = str(write_gan_config(tmp_path)), 'ddp' if ranks > 1 else 'base'
    run(gloo_pool, tmp_path, ranks, 'straight', config, *options(start=start, strategy=strategy))
    killed = start_process(
        tmp_path, 'broken', config, *options(start=start, strategy=strategy, kill_at=6, kill_rank=ranks - 1), ranks=ranks
    )
    assert killed.returncode != 0
    assert (tmp_path / 'work_dirs/broken/checkpoints/iter_4/COMPLETE').exists(), killed.stderr
    run(gloo_pool, tmp_path, ranks, 'broken', config, '--auto-resume', *options(start=start, strategy=strategy))
    compare(tmp_path, ranks)
    terms = {name for line in logged(tmp_path / 'work_dirs/broken') for name in line}
    assert {'tokenizer/generator', 'tokenizer/generator_weight', 'discriminator/r1', 'discriminator/lecam'} <= terms
