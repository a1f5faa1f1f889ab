"""Ranks: the default strategy follows their number, and a strategy that cannot use them is refused in every command."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launch.support import Launchers
from tests.ranks import GlooPool
from tests.runners.support import commands_here, everything, said_by, train, write_config
from vq.assembly.compose import compose, runner_config
from vq.assembly.ranks import without_ranks
from vq.core.errors import UserError
from vq.registries import VQStrategyRegistry
from vq.strategies import peers
from vq.strategies.auto import AutoStrategy
from vq.strategies.base import BaseStrategy

PHOTOS = 'configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py'
ENTRIES = [
    'configs/digits/vq_ema.py',
    'configs/digits/ar.py',
    'configs/ic/imagenet_ddp.py',
    'configs/fid/interface.py',
    PHOTOS,
]


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (('RANK', '0'), ('LOCAL_RANK', '0'), ('WORLD_SIZE', '2'), ('LOCAL_WORLD_SIZE', '2')):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize('tiny', [False, True])
@pytest.mark.parametrize('entry', ENTRIES)
def test_9_the_default_strategy_follows_the_number_of_ranks(
    entry: str, tiny: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    alone = compose(entry, {}, {}, tiny=tiny)
    assert (alone.trainer.strategy.type, alone.trainer.strategy.became) == ('AutoStrategy', 'base')
    request.getfixturevalue('two_ranks')
    together = compose(entry, {}, {}, tiny=tiny)
    assert together.trainer.strategy.became == 'ddp'
    first, second = (without_ranks(runner_config(config, 'trainer')) for config in (alone, together))
    assert first == second, 'nothing else depends on the ranks, so that figures are found again'


def test_9_auto_is_what_it_became(monkeypatch: pytest.MonkeyPatch) -> None:
    for became in ('base', 'ddp'):
        strategy = AutoStrategy(became=became, timeout=30.0)
        assert (strategy.name, strategy.distributed) == (became, became == 'ddp')
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '3')
    assert VQStrategyRegistry.build(dict(type='AutoStrategy')).became == 'ddp'


@pytest.mark.usefixtures('two_ranks')
@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('train', ['x', PHOTOS, '--config-options', 'strategy::base', '--overwrite']),
        ('train', ['x', 'configs/digits/vq_ema.py', '--override', '.trainer.strategy.type::BaseStrategy']),
        ('train', ['x', 'configs/digits/vq_ema.py', '--config-options', 'strategy::xla']),
        ('train', ['x', 'configs/digits/vq_ema.py', '--config-options', 'device::cuda:1']),
        ('val', ['x', PHOTOS, '--config-options', 'strategy::base']),
        ('test', ['x', PHOTOS, '--config-options', 'strategy::base', '--load-model-from', 'y']),
        ('tokenize', ['x', PHOTOS, '--config-options', 'strategy::base', '--load-model-from', 'y']),
        ('sample', ['x', 'configs/digits/ar.py', '--config-options', 'strategy::base', '--load-model-from', 'y']),
        ('fid', ['digits', '--config-options', 'strategy::base']),
        ('fid_of', ['none', 'z.npz', '--figures', 'inception_score', '--config-options', 'strategy::base']),
        ('pairs', ['a', 'b', '--config-options', 'strategy::base']),
        ('inference', ['configs/digits/vq_ema.py', 'z.png', '--load-model-from', 'y']),
        ('fidelity', ['digits', 'z.npz']),
        ('convert', ['taming', 'z.ckpt']),
        ('visualize_patches', ['configs/digits/vq_ema.py', 'tokens']),
        ('prepare', ['lpips']),
    ],
)
def test_9_a_strategy_that_cannot_use_its_ranks_is_refused(
    command: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / 'work_dirs/x/checkpoints/iter_1'
    run.mkdir(parents=True)
    with commands_here(dry=False):
        said = said_by(capsys, importlib.import_module(f'vq.cli.{command}').main, *words, code=2)
    device = 'cuda' in str(words)
    assert ('2 ranks of this machine would share' if device else 'uses one process, and there are 2') in said
    assert 'CUDA_VISIBLE_DEVICES' in said if device else 'auto_torchrun --nproc-per-node 1' in said
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob('*')] == [
        path.relative_to(tmp_path) for path in (*[*run.parents][2::-1], run)
    ], 'nothing is written, nothing deleted'


@pytest.mark.usefixtures('two_ranks')
def test_9_python_code_is_refused_too() -> None:
    with pytest.raises(UserError, match='the strategy base uses one process, and there are 2'):
        BaseStrategy('cpu').start()


@pytest.mark.slow
def test_9_two_ranks_of_a_default_config_train_one_model(tmp_path: Path, gloo_pool: GlooPool) -> None:
    for folder, world, became in ((tmp_path / 'two', 2, 'ddp'), (tmp_path / 'one', 1, 'base')):
        folder.mkdir()
        words = (str(folder), 'run', str(write_config(folder)), '--config-options', 'iters:4')
        assert gloo_pool.run(train, *words) == [0, 0] if world == 2 else train(*words) == 0
        found: dict[str, Any] = json.loads((folder / 'work_dirs/run/tiny.json').read_text())
        assert found['trainer']['strategy'] == {'type': 'AutoStrategy', 'became': became}
        checkpoint = everything(folder / 'work_dirs/run/checkpoints/iter_4')
        assert checkpoint['training']['strategy'] == became
        assert len([name for name in checkpoint if name.startswith('rank_')]) == world
        assert checkpoint['training']['samples_seen'] == 4 * 8 * world


# ranks that are lost

GLOO = '[/pytorch/third_party/gloo/gloo/transport/tcp/'


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (RuntimeError(f'{GLOO}pair.cc:534] Connection closed by peer [127.0.0.1]:1'), 'lost the connection to another rank'),
        (RuntimeError(f'{GLOO}buffer.cc:78] Timed out waiting 12000ms'), 'waited up to 12 s for another rank, without an'),
        (torch.distributed.DistNetworkError('The client socket has timed out after 1ms'), 'waited up to 12 s'),
    ],
)
def test_9_an_error_of_the_communication_becomes_a_message(error: Exception, said: str) -> None:
    assert peers.is_loss(error)
    found = peers.explain(error, 0, 2, 12.0, None)
    assert said in found.message and found.exit_code == 1 and '--auto-resume' in found.hint


def test_9_other_errors_stay_what_they_are() -> None:
    assert not any(map(peers.is_loss, (None, RuntimeError('shape mismatch'), ValueError('gloo'))))


def test_9_the_ranks_that_noticed_nothing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, 'ECHO', 0.01)
    store = torch.distributed.HashStore()
    store.set('vq/noticed/2', '')
    found = peers.explain(RuntimeError(f'{GLOO}buffer.cc:78] Timed out waiting 1ms'), 0, 5, 1.0, store)
    assert 'for the ranks 1, 3, 4, without' in found.message


FROZEN = """
from vq.cli.errors import command
from vq.core import collectives
from vq.strategies.ddp import DDPStrategy
import torch

@command
def main(argv=None):
    strategy = DDPStrategy(device="cpu", timeout=8.0)
    try:
        strategy.start()
        collectives.all_reduce(torch.ones(1))
        if rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        collectives.all_reduce(torch.ones(1))
    finally:
        strategy.stop()
    return 0

sys.exit(main())
"""


@pytest.mark.slow
def test_9_a_frozen_rank_ends_with_a_message(tmp_path: Path, warm_programs: Path) -> None:
    code, lines = Launchers(tmp_path, warm_programs / 'python').run(FROZEN)
    assert code == 1
    assert lines[-2].startswith('error: rank 0 waited up to 8 s for rank 1, without an answer')
    assert 'Traceback' not in '\n'.join(lines)
