"""Small runs for tests: a config on digits, training in this process or in another, comparing the resulting files."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.warm import programs
from vq.io import atomic
from vq.registries import VQRegistry

REPOSITORY = Path(__file__).parents[2]

CONFIG = '''
"""A tiny tokenizer on digits."""

from vq.core import PyConfig

_quantizer = dict(
    type='VectorQuantizer', codebook_size=32, embedding_dim=8,
    update=dict(type='EMAUpdate', decay=0.9, restart=dict(candidates=16)),
)
custom_imports = ['tests.runners.parts']
_iters = _kwargs_.get('iters', 8)
_kwargs_.setdefault('batch_size', 8)
_kwargs_.setdefault('width', 8)
_base_ = [PyConfig.load('digits/interface.py', quantizer=_quantizer, iters=_iters, codebook_size=32)]
trainer = dict(
    model=dict(tokenizer=dict(encoder=dict(out_channels=16, multipliers=(1, 1)),
                              decoder=dict(multipliers=(1, 1)))),
    optimizers=dict(tokenizer=dict(clip=1.0, schedule=dict(_delete_=True, type='CosineSchedule', warmup=3))),
    callbacks=dict(
        _delete_=True,
        noise=dict(type='NoiseCallback'),
        sample_recorder=dict(type='SampleRecorder'),
        ema=dict(type='EMACallback', decay=0.9),
        log=dict(interval=3),
        progress=None,
        git=None,
        alarm=dict(type='CodebookAlarmCallback', interval=4),
        checkpoint=dict(interval=_kwargs_.get('save_every', 4)),
    ),
)
if _kwargs_.get('kill_at'):
    trainer['callbacks']['kill'] = dict(type='KillCallback', step=_kwargs_['kill_at'], rank=_kwargs_.get('kill_rank', 0),
                                        number=_kwargs_.get('kill_signal', 9), times=_kwargs_.get('kill_times'))
'''


def write_config(folder: Path) -> Path:
    path = folder / 'tiny.py'
    atomic.write_text(path, CONFIG)  # ranks write it at the same time: none may read what another has begun
    return path


def start(
    folder: Path, *arguments: str, ranks: int = 1, module: str = 'vq.train', launch: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command in another process, as a user would; ``launch`` are options of the launcher. It starts warm."""
    command = [str(programs() / 'python'), '-m', 'vq.launch.main', *launch]
    command += ['--nproc-per-node', str(ranks)] if ranks > 1 else []
    environment = {name: value for name, value in os.environ.items() if name not in ('DRY_RUN', 'RANK', 'WORLD_SIZE')}
    environment |= {'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [*command, '-m', module, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def train(folder: str, *arguments: str) -> int:
    """``vq.train`` in this process, from ``folder``; ranks of the pool call it too."""
    from vq.cli.train import main

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as ``start`` sets it: sums depend on how they are split
    before = Path.cwd()
    os.chdir(folder)
    try:
        return main(list(arguments))
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)


def assert_same(first: Any, second: Any, where: str = '') -> None:
    """Assert bitwise equality of nested containers."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), f'{where} differs'
        assert first.dtype == second.dtype, f'{where}: {first.dtype} and {second.dtype}'
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), f'{where}: {first.keys() ^ second.keys()}'
        for key in first:
            assert_same(first[key], second[key], f'{where}/{key}')
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f'{where}[{index}]')
    else:
        assert first == second, f'{where}: {first} and {second}'


def everything(checkpoint: Path) -> dict[str, Any]:
    """The whole content of a checkpoint."""
    found: dict[str, Any] = {'training': torch.load(checkpoint / 'training.pt', weights_only=True)}
    for name in ('model', 'ema'):
        found[name] = load_file(checkpoint / f'{name}.safetensors')
    for path in sorted(checkpoint.glob('rank_*.pt')):
        found[path.name] = torch.load(path, weights_only=True)
    return found


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """The content of every file below a folder; None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob('*'))}


def logged(run: Path) -> list[dict[str, Any]]:
    """The journal without times."""
    return [
        {key: value for key, value in json.loads(line).items() if key != 'timing'}
        for line in (run / 'log.jsonl').read_text().splitlines()
    ]


def samples(run: Path, rank: int = 0) -> dict[int, str]:
    """Step -> ids of its batch, in the last attempt."""
    lines = (run / f'samples_{rank}.txt').read_text().splitlines()
    return {int(line.split(' ', 1)[0]): line.split(' ', 1)[1] for line in lines}


def build_trainer(
    folder: Path, options: dict[str, Any] | None = None, overrides: dict[str, Any] | None = None, seed: int = 3407
) -> Any:
    """A bound trainer, before ``run()``, which works in ``folder``."""
    from vq.assembly.building import build_runner
    from vq.assembly.compose import compose
    from vq.runners.context import RunContext

    folder.mkdir(parents=True, exist_ok=True)
    config = compose(str(write_config(folder)), options or {}, overrides or {}, tiny=False)
    trainer = build_runner(config, 'trainer', seed)
    trainer.bind(RunContext('test', folder / 'run', seed, config.dumps()))
    return trainer


def quiet(*parts: dict[str, Any], **step: Any) -> dict[str, Any]:
    """Overrides of a run with only these callbacks, and these step settings."""
    settings = {'clip': None, 'schedule': None, **step}
    return {
        '.trainer.callbacks': [*parts],
        **{f'.trainer.optimizers.tokenizer.{name}': value for name, value in settings.items()},
    }


@contextlib.contextmanager
def commands_here(dry: bool = True) -> Iterator[None]:
    """Commands run in this process. Their log files and environment variables are restored afterwards."""
    logger = logging.getLogger('vq')
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (('OMP_NUM_THREADS', '1'), ('OMP_WAIT_POLICY', 'passive')):
            patch.setenv(name, value)
        if dry:
            patch.setenv('DRY_RUN', 'True')
        else:
            patch.delenv('DRY_RUN', raising=False)
        patch.setattr(sys, 'argv', ['vq.test_of_a_command'])
        yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


@contextlib.contextmanager
def own_parts(folder: Path) -> Iterator[None]:
    """Modules in ``folder`` that are imported meanwhile, and whatever is registered, are removed afterwards."""
    modules = set(sys.modules)
    registered = {}
    for registry in VQRegistry.tree():
        registry.load_package()
        registered[registry] = set(registry.data)
    try:
        yield
    finally:
        for registry, names in registered.items():
            for name in set(registry.data) - names:
                del registry.data[name]
        for name in set(sys.modules) - modules:
            if (folder / f'{name}.py').exists():
                del sys.modules[name]


def said_by(capsys: pytest.CaptureFixture[str], main: Callable[[list[str]], int], *argv: str, code: int = 0) -> str:
    """The output, on both streams, of a command in this process; it must end with ``code``."""
    found = main(list(argv))
    output = capsys.readouterr()
    assert found == code, output.err[-3000:]
    return output.out + output.err
