"""``vq.run_training``: a training as one call, from a script or a notebook.

    trained = vq.run_training('digits/vq_ema.py', name='first', options={'iters': 200})
    trained.metrics['psnr']
    tokenizer = trained.load()

It is ``vq train`` in this process, and in one process only: ``vq train`` starts several. What the command prints as an error
is raised as ``UserError``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.core import environment, run_names
from vq.core.errors import UserError
from vq.core.trust import Untrusted

FLAG = re.compile(r'--([a-z]+(?:-[a-z]+)*)')
SWITCHES = ('auto_resume', 'overwrite', 'change', 'trust', 'autocast')
NAMES = {'config_options': 'options', **{name: name for name in ('override', 'load_model_from', 'load_from', 'work_dir')}}
NOT_FIGURES = ('step', 'kind', 'epoch', 'samples', 'seconds', 'skipped')
SHOWN = 4  # figures in a repr


@dataclasses.dataclass(frozen=True)
class Trained:
    """What ``run_training`` returns. Everything is read from the run's folder, so the trainer's memory is free again."""

    name: str
    folder: Path
    step: int  # optimizer steps done
    iters: int  # optimizer steps of the whole run
    metrics: Mapping[str, float]  # of the last evaluation; empty without one
    losses: Mapping[str, float]  # means over the last interval of the log
    seconds: float  # of this call

    @property
    def finished(self) -> bool:
        """False if it was stopped: go on with ``auto_resume=True``."""
        return self.step >= self.iters

    @property
    def checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        from vq.io import history

        return history.latest(self.folder / 'checkpoints')

    def records(self, kind: str = 'train') -> list[dict[str, Any]]:
        """The lines of ``log.jsonl`` of a kind: 'train' or 'eval'. Each has its step."""
        from vq.runners.journal import read

        return read(self.folder / 'log.jsonl', kind)

    def load(self, **settings: Any) -> Any:
        """``vq.load`` of this run. Modules of yours that it names are imported already, so they need no trust."""
        from vq.loading import load

        return load(self.folder.resolve(), **settings)

    def __repr__(self) -> str:
        state = 'finished' if self.finished else f'stopped at step {self.step} of {self.iters}'
        figures = [f'{name} {value:.4g}' for name, value in (self.metrics or self.losses).items() if '/' not in name]
        shown = ', '.join(figures[:SHOWN])
        return f'Trained({self.folder}, {state}, {self.seconds:.0f} s{", " if shown else ""}{shown})'


def run_training(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    name: str,
    options: Mapping[str, Any] | None = None,
    override: Mapping[str, Any] | None = None,
    work_dir: str | Path | None = None,
    overwrite: bool = False,
    auto_resume: bool = False,
    load_from: str | None = None,
    change: bool = False,
    load_model_from: Sequence[str | Path] | str | Path = (),
    weights: str = 'auto',
    seed: int = 3407,
    autocast: bool = False,
    trust: bool = False,
) -> Trained:
    """Train what ``config`` describes, as the run ``name``; the other arguments are those of ``vq train``.

    - ``config``: a config file (a path, or its path among the packaged configs), a run folder, or a composed config, such as
      ``PyConfig.load(...)`` gives and you have changed. None with ``auto_resume``: that of the run.
    - ``options``: options of the config (``--config-options``). ``override``: values by path, ``{'.trainer.iters': 100}``.

    Ctrl-C, or the stop button of a notebook, ends the training after the step, with a checkpoint, and the result has
    ``finished`` False; a second one interrupts at once. Logging handlers, random states
    and settings of torch are restored at the end.
    """
    arguments = {key: value for key, value in locals().items() if key not in ('config', 'name')}
    environment.need_one_process('vq.run_training', ' For several take the command: vq train NAME CONFIG.')
    if 'torch' not in sys.modules:  # else it has read its variables
        environment.prepare()
    from vq.cli import train as command

    files = [load_model_from] if isinstance(load_model_from, str | Path) else load_model_from
    started = time.monotonic()
    with in_words_of_python(), _as_it_was(), _file_of(config) as file:
        settings = command.make_parser().parse_args([run_names.checked(name)])
        settings.config = file
        settings.config_options, settings.override = dict(options or {}), dict(override or {})
        settings.load_model_from, settings.weights = [str(each) for each in files], weights
        settings.work_dir = None if work_dir is None else str(work_dir)
        settings.seed, settings.autocast, settings.trust = seed, autocast, trust
        settings.overwrite, settings.auto_resume, settings.change, settings.load_from = (
            overwrite,
            auto_resume,
            change,
            load_from,
        )
        trainer = command.train(settings, (), _call(config, name, arguments))
        folder, step, iters = trainer.work_dir, trainer.step, trainer.iters
    measured, logged = (_last(folder / 'log.jsonl', kind) for kind in ('eval', 'train'))
    return Trained(name, folder, step, iters, measured, logged, time.monotonic() - started)


def _last(file: Path, kind: str) -> dict[str, float]:
    """The figures of the last line of a kind."""
    from vq.runners.journal import read

    records = read(file, kind) if file.is_file() else []
    last = records[-1] if records else {}
    return {key: float(value) for key, value in last.items() if isinstance(value, int | float) and key not in NOT_FIGURES}


def _call(config: Any, name: str, arguments: Mapping[str, Any]) -> str:
    """The call as text, for the records of the run."""
    said = {key: value for key, value in arguments.items() if value not in (None, False, (), {}, 'auto', 3407)}
    first = repr(str(config)) if isinstance(config, str | Path) else 'a config' if config is not None else ''
    words = [*([first] if first else []), *(f'{key}={value!r}' for key, value in {'name': name, **said}.items())]
    return f'vq.run_training({", ".join(words)})'


@contextlib.contextmanager
def _file_of(config: str | Path | Mapping[str, Any] | None) -> Iterator[str | None]:
    """CONFIG as the command takes it. A composed config is written to a temporary file; its modules are the caller's own."""
    if not isinstance(config, Mapping):
        yield None if config is None else str(config)
        return
    from vq.core import config_json, trust
    from vq.core.config import PyConfig

    settled = PyConfig(config)
    trust.import_modules(trust.module_names(settled.get('custom_imports', []), 'the config'))
    with tempfile.TemporaryDirectory(prefix='vq-') as room:
        file = Path(room) / 'config.json'
        file.write_text(config_json.dumps(settled), encoding='utf-8')
        yield str(file)


@contextlib.contextmanager
def in_words_of_python() -> Iterator[None]:
    """Errors name arguments in place of flags: ``auto_resume=True`` for ``--auto-resume``."""
    try:
        yield
    except UserError as error:
        message, hint = (FLAG.sub(_argument, text) for text in (error.message, error.hint))
        if isinstance(error, Untrusted):
            hint = 'If you trust the author of the run: trust=True.'
        if (message, hint) == (error.message, error.hint):
            raise
        error.message, error.hint = message, hint
        error.args = (f'{message}\n{hint}' if hint else message,)
        raise


def _argument(flag: re.Match[str]) -> str:
    key = flag[1].replace('-', '_')
    return f'{key}=True' if key in SWITCHES else NAMES.get(key, flag[0])


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Afterwards the caller has his own log handlers, random states and settings of torch again."""
    import torch

    from vq.core import collectives
    from vq.core.random import random_state, restore_random_state

    logger = logging.getLogger('vq')
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    logger.handlers[:] = []  # a command closes those that it finds
    state = random_state()
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
        restore_random_state(state)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        collectives.install(None)
