"""``vq.run_training``: the command's training as a call, which leaves the process as it was."""

from __future__ import annotations

import json
import logging
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vq
from tests.runners.support import assert_same, commands_here, everything, logged, train, write_config
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.training import in_words_of_python

SHORT = {'iters': 4, 'save_every': 2}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with ``tiny.py``."""
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with commands_here(dry=False):
        yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_it_is_the_training_of_the_command(here: Path) -> None:
    assert train(str(here), 'command', 'tiny.py', '--config-options', 'iters:4', 'save_every:2') == 0
    trained = vq.run_training('tiny.py', name='call', options=SHORT)
    assert_same(*(everything(here / f'work_dirs/{name}/checkpoints/iter_4') for name in ('command', 'call')))
    assert logged(here / 'work_dirs/command') == logged(here / 'work_dirs/call')
    assert (trained.step, trained.iters, trained.finished) == (4, 4, True)
    assert trained.checkpoint == Path('work_dirs/call/checkpoints/iter_4')
    last = trained.records()[-1]
    assert last['step'] == 4 and trained.losses['total'] == last['total']
    tokenizer = trained.load()
    assert tokenizer.codebook_size == 32 and 'work_dirs/call' in tokenizer.source
    assert repr(trained).startswith('Trained(work_dirs/call, finished, ')


@pytest.mark.slow
def test_it_works_twice_and_leaves_nothing_behind(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger, handler = logging.getLogger('vq'), logging.NullHandler()
    logger.addHandler(handler)
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    handlers_of_signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    drawn = []
    for name in ('one', 'two'):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        vq.run_training('tiny.py', name=name, options=SHORT, override={'.trainer.strategy.deterministic': True})
        drawn.append((random.random(), np.random.random(), torch.rand(()).item()))
        assert (logger.handlers, logger.level, logger.propagate) == (handlers, level, propagate)
        assert not torch.are_deterministic_algorithms_enabled()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn == [(random.random(), np.random.random(), torch.rand(()).item())] * 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers_of_signals
    assert 'iter_4' in (here / 'work_dirs/one/log.txt').read_text()
    logger.removeHandler(handler)


@pytest.mark.slow
def test_an_earlier_run_is_neither_lost_nor_mixed_up(here: Path) -> None:
    vq.run_training('tiny.py', name='run', options={'iters': 4}, work_dir='elsewhere')
    before = everything(here / 'elsewhere/run/checkpoints/iter_4')
    with pytest.raises(UserError, match='exists already') as caught:
        vq.run_training('tiny.py', name='run', options={'iters': 4}, work_dir=here / 'elsewhere')
    assert caught.value.hint == 'Go on with auto_resume=True, start over with overwrite=True, or choose another NAME.'
    assert str(caught.value).endswith(caught.value.hint)
    assert_same(everything(here / 'elsewhere/run/checkpoints/iter_4'), before)
    again = vq.run_training(name='run', auto_resume=True, work_dir='elsewhere')  # CONFIG is that of the run
    assert again.step == 4
    with pytest.raises(UserError, match='other settings') as caught:
        vq.run_training('tiny.py', name='run', options={'iters': 4}, seed=1, auto_resume=True, work_dir='elsewhere')
    assert caught.value.hint.endswith('change=True.')
    over = vq.run_training('tiny.py', name='run', options={'iters': 3}, overwrite=True, work_dir='elsewhere')
    assert over.step == 3 and not (here / 'elsewhere/run/checkpoints/iter_4').exists()


@pytest.mark.slow
def test_an_interrupted_training_gives_the_result_so_far(here: Path) -> None:
    stop = {'.trainer.callbacks.kill': {'type': 'KillCallback', 'step': 3, 'number': int(signal.SIGINT)}}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        stopped = vq.run_training('tiny.py', name='run', options={'iters': 6}, override=stop)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not stopped.finished and stopped.step in (2, 3)
    assert stopped.checkpoint == Path(f'work_dirs/run/checkpoints/iter_{stopped.step}')
    assert repr(stopped).startswith(f'Trained(work_dirs/run, stopped at step {stopped.step} of 6')
    assert stopped.load().codebook_size == 32
    rest = vq.run_training('tiny.py', name='run', options={'iters': 6}, auto_resume=True, change=True)
    assert rest.finished and rest.step == 6


@pytest.mark.slow
def test_a_composed_config_is_taken(here: Path) -> None:
    config = PyConfig.load('tiny.py', iters=3)
    config.trainer.model.tokenizer.quantizer.codebook_size = 16
    trained = vq.run_training(config, name='changed')
    assert trained.load().codebook_size == 16
    assert vq.run_training(name='changed', auto_resume=True).finished


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(config='tiny.py', name='../run'), 'would leave the folder of runs'),
        (dict(config='nothing.py', name='run'), "config file 'nothing.py' does not exist"),
        (dict(name='run'), 'CONFIG is needed'),
        (dict(config='tiny.py', name='run', options={'itres': 3}), "'itres'"),
        (dict(config='tiny.py', name='run', override={'.trainer.itres': 3}), "no parameter 'itres'"),
        (dict(config='tiny.py', name='run', load_model_from='none'), "no run, checkpoint or file 'none'"),
        (dict(config='tiny.py', name='run', auto_resume=True, load_from='iter_9'), 'iter_9'),
    ],
    ids=str,
)
def test_errors_are_raised_before_anything_is_written(here: Path, settings: dict[str, Any], said: str) -> None:
    before = list(logging.getLogger('vq').handlers)
    with pytest.raises(UserError, match=said):
        vq.run_training(**settings)
    assert not list(here.glob('work_dirs/run/checkpoints/*'))
    assert logging.getLogger('vq').handlers == before


def test_several_ranks_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(UserError, match=r'vq\.run_training uses one process, and there are 2') as caught:
        vq.run_training('tiny.py', name='run')
    assert 'vq train NAME CONFIG' in caught.value.hint


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('Go on with --auto-resume.', 'Go on with auto_resume=True.'),
        ('Give --config-options tokenizer_run::NAME', 'Give options tokenizer_run::NAME'),
        ('--load-from iter_2 goes back', 'load_from iter_2 goes back'),
        ('auto_torchrun --nproc-per-node 2', 'auto_torchrun --nproc-per-node 2'),
    ],
)
def test_errors_name_arguments_in_place_of_flags(text: str, expected: str) -> None:
    with pytest.raises(UserError) as caught, in_words_of_python():
        raise UserError('it is wrong', text)
    assert caught.value.hint == expected


def test_a_run_of_somebody_else_needs_trust(here: Path) -> None:
    (here / 'stranger.json').write_text(json.dumps({'custom_imports': ['a_module_of_nobody']}))
    with pytest.raises(UserError, match=r'stranger\.json names modules .*: a_module_of_nobody') as caught:
        vq.run_training('stranger.json', name='other')
    assert caught.value.hint == 'If you trust the author of the run: trust=True.'
