"""Other logs of a run: TensorBoard, Weights & Biases, and mmengine's visualisation back ends."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from vq.core import collectives, output
from vq.core.config import plain
from vq.core.errors import ConfigError
from vq.core.reading import parse_json
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry
from vq.runners.histograms import Histogram
from vq.runners.protocol import TrainerLike

logger = logging.getLogger('vq')

# type of a back end -> (its package, its extra, where it writes below the run, its settings). The second names are mmengine's.
TENSORBOARD = ('tensorboard', 'tensorboard', 'tensorboard', {'save_dir'})
WANDB = ('wandb', 'wandb', '.', {'save_dir', 'init_kwargs'})  # wandb itself makes a folder ``wandb``
OWN = {'TensorBoard': TENSORBOARD, 'TensorboardVisBackend': TENSORBOARD, 'Wandb': WANDB, 'WandbVisBackend': WANDB}


class Backend(Protocol):
    """A log that is open. Values of a step can come in several calls."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, image: Tensor) -> None: ...  # (3, H, W) uint8 on the host

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None: ...

    def close(self) -> None: ...

    def place(self) -> str: ...  # how to look at it


class TensorBoard:
    """Event files, by torch's writer. Of an earlier part of the run TensorBoard drops what lies after ``step``."""

    def __init__(self, folder: Path, step: int) -> None:
        with hidden('botocore', 'fsspec'):  # tensorboard imports them for S3: a third of a second, and runs are local
            from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a run that is killed resumes at a checkpoint: what was logged before must be in the file

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.writer.add_image(name, image, step)
        self.writer.flush()

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        for name, value in values.items():
            if value.count:  # TensorBoard refuses one of nothing: all values are not finite
                self.writer.add_histogram_raw(
                    name,
                    min=value.low,
                    max=value.high,
                    num=value.count,
                    sum=value.sum,
                    sum_squares=value.norm**2,
                    bucket_limits=value.edges[1:],
                    bucket_counts=list(value.counts),
                    global_step=step,
                )
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def place(self) -> str:
        return f'tensorboard --logdir {shlex.quote(self.writer.log_dir)}'


class Wandb:
    """A run of Weights & Biases, or with ``id`` the next part of an earlier one."""

    def __init__(self, folder: Path, name: str, config: Any, id: str | None, settings: Mapping[str, Any]) -> None:
        import wandb

        self.wandb = wandb
        again = {} if id is None else {'id': id, 'resume': 'allow'}
        try:
            self.run = wandb.init(**{'dir': str(folder), 'name': name, 'config': config, **settings, **again})
        except getattr(wandb, 'Error', RuntimeError) as error:
            raise ConfigError(
                f'Weights & Biases cannot be started: {error}',
                'Log in (wandb login), set WANDB_MODE=offline, or leave wandb out.',
            ) from error

    @property
    def id(self) -> str:
        return str(self.run.id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.run.log({name: self.wandb.Image(image.permute(1, 2, 0).numpy())}, step=step)

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        made = {
            name: self.wandb.Histogram(np_histogram=(np.array(each.counts), np.array(each.edges)))
            for name, each in values.items()
        }
        self.run.log(made, step=step)

    def close(self) -> None:
        self.run.finish()

    def place(self) -> str:
        return str(getattr(self.run, 'url', None) or f'wandb run {self.id}, offline: wandb sync {self.run.dir}')


class FromMMEngine:
    """A back end of mmengine: MLflow, local files, and others."""

    def __init__(self, settings: dict[str, Any]) -> None:
        with hidden('transformers'):
            from mmengine.registry import VISBACKENDS
            from mmengine.visualization import vis_backend  # noqa: F401  registers the back ends

        try:
            self.backend = VISBACKENDS.build(settings)
            _ = self.backend.experiment  # opens the files now, so that a missing package is said before training
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f'callbacks: the logging back end {settings.get("type")!r} cannot be started: {error}',
                'See the settings of this mmengine back end. Those that need no mmengine are TensorBoard and Wandb.',
            ) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.backend.add_scalars(dict(values), step=step)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        self.backend.add_image(name, image.permute(1, 2, 0).numpy(), step=step)

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        """mmengine's back ends take none."""

    def close(self) -> None:
        self.backend.close()

    def place(self) -> str:
        return str(getattr(self.backend, '_save_dir', type(self.backend).__name__))


@contextlib.contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """As if the packages were not installed, except those that are imported already.

    mmengine asks transformers for an optimizer, and that starts torch's compiler and torch_xla: 4 seconds at the start of
    every run, for nothing.
    """
    absent = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in absent:
            del sys.modules[package]


@VQCallbackRegistry.register_()
class BackendsCallback(Callback[TrainerLike]):
    """Sends every scalar, picture and histogram of the journal to other logs. Those that are not installed are left out, with
    one line of the log.

    backends  settings of each by type: ``dict(type='TensorBoard')``, ``dict(type='Wandb', init_kwargs=dict(project='vq'))``,
              or a back end of mmengine. None: TensorBoard
    wandb     project of Weights & Biases to log to, too. The id of its run is stored in checkpoints, so that a resumed run
              goes on in the same curves
    """

    phase = 'backends'

    def __init__(self, backends: list[dict[str, Any]] | None = None, wandb: str | None = None) -> None:
        self.asked = backends is not None
        self.settings = [plain(backend) for backend in backends or []] if self.asked else [{'type': 'TensorBoard'}]
        if wandb is not None:
            self.settings.append({'type': 'Wandb', 'init_kwargs': {'project': wandb}})
        self.wandb_id: str | None = None
        self.backends: dict[str, Backend] = {}  # those that are open
        self.places: list[str] = []  # how to look at them, also after their end

    def before_run(self) -> None:
        if not collectives.is_main():
            return
        for settings in self.settings:
            backend = self._open(dict(settings))
            if backend is not None:
                name = str(settings.get('type'))
                self.backends[name if name not in self.backends else f'{name} {len(self.backends)}'] = backend
        self.places = [backend.place() for backend in self.backends.values()]
        if self.backends:
            self.runner.journal.scalar_listeners.append(self._scalars)
            self.runner.journal.picture_listeners.append(self._picture)
            self.runner.journal.histogram_listeners.append(self._histograms)

    def _open(self, settings: dict[str, Any]) -> Backend | None:
        kind = str(settings.get('type', ''))
        package, extra = ('mmengine', 'mm')
        try:
            if kind in OWN and settings.keys() - {'type'} <= OWN[kind][3]:
                package, extra, *_ = OWN[kind]
                return self._open_own(kind, settings)
            settings.setdefault('save_dir', str(self._old_folder(kind)))
            return FromMMEngine(settings)
        except ImportError as error:
            reason = (str(error).strip().splitlines() or [''])[-1]
            level = logging.WARNING if self.asked or package != 'tensorboard' else logging.INFO
            said = "left out: the logging back end %s needs %s (%s); pip install 'vq[%s]'"
            logger.log(level, said, kind, package, reason, extra)
            return None

    def _open_own(self, kind: str, settings: Mapping[str, Any]) -> Backend:
        folder = Path(settings.get('save_dir') or self.folder(kind))
        if OWN[kind] is TENSORBOARD:
            return TensorBoard(folder, self.runner.step)
        context = self.runner.context
        config = parse_json(context.config_text) if context.config_text else None
        run = Wandb(folder, context.name, config, self.wandb_id, settings.get('init_kwargs', {}))
        self.wandb_id = run.id
        return run

    def folder(self, kind: str) -> Path:
        """Where an own back end writes. A run that mmengine's back end has begun goes on in its folder."""
        old = self._old_folder(kind)
        return old if OWN[kind] is TENSORBOARD and old.is_dir() else self.runner.work_dir / OWN[kind][2]

    def _old_folder(self, kind: str) -> Path:
        return self.runner.work_dir / 'backends' / kind.removesuffix('VisBackend').lower()

    def _scalars(self, step: int, kind: str, values: dict[str, Any]) -> None:
        flat = dict(_flatten(values, f'{kind}/'))
        for name, backend in [*self.backends.items()]:
            with self._losing(name):
                backend.scalars(step, flat)

    def _picture(self, step: int, name: str, image: Tensor) -> None:
        for kind, backend in [*self.backends.items()]:
            with self._losing(kind):
                backend.picture(step, name, image)

    def _histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        for name, backend in [*self.backends.items()]:
            with self._losing(name):
                backend.histograms(step, values)

    @contextlib.contextmanager
    def _losing(self, name: str) -> Iterator[None]:
        """A disk that is full does not end a run: the log that it hits ends, and the loss is said."""
        try:
            yield
        except OSError as error:
            output.count_lost(name, error)
            logger.warning('%s logs no more: %s', name, error)
            self.backends.pop(name, None)

    def after_run(self) -> None:
        self._close()

    def on_error(self, error: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for name, backend in [*self.backends.items()]:
            with self._losing(name):
                backend.close()
        self.backends.clear()

    def state_dict(self) -> dict[str, Any]:
        return {'wandb_id': self.wandb_id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.wandb_id = state['wandb_id']


def _flatten(values: Mapping[str, Any], prefix: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f'{prefix}{name}/')
        elif isinstance(value, int | float):
            found.append((prefix + name, float(value)))
    return found
