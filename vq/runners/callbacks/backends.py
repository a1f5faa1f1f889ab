"""Other loggers, through mmengine's visualisation back ends: TensorBoard, Weights & Biases, MLflow, local files."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from vq.core import collectives
from vq.core.config import plain
from vq.core.errors import ConfigError, listing
from vq.interfaces import Callback
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike

logger = logging.getLogger('vq')

EXTRAS = {'TensorboardVisBackend': 'mm,tensorboard', 'WandbVisBackend': 'mm,wandb'}


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """As if ``package`` were not installed, unless it is imported already.

    mmengine asks transformers for an optimizer, and that starts torch's compiler and torch_xla: 4 seconds at the start of
    every run, for nothing.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


@VQCallbackRegistry.register_()
class BackendsCallback(Callback[TrainerLike]):
    """Sends every scalar of the journal and every picture to ``backends``: settings of mmengine's back ends by type,
    for example ``dict(type='TensorboardVisBackend')`` or ``dict(type='WandbVisBackend', init_kwargs=dict(project='vq'))``.

    Back ends that are not installed are left out, with one line of the log. The run id Weights & Biases gave is stored in the
    checkpoint, so that a resumed run goes on in the same curve.
    """

    phase = 'backends'

    def __init__(self, backends: list[dict[str, Any]]) -> None:
        self.settings = [plain(backend) for backend in backends]
        self.wandb_id: str | None = None
        self.backends: list[Any] = []

    def before_run(self) -> None:
        if not collectives.is_main():
            return
        for settings, registry in self._installed():
            backend = self._build(dict(settings), registry)
            if backend is not None:
                self.backends.append(backend)
        if self.backends:
            self.runner.journal.scalar_listeners.append(self._scalars)
            self.runner.journal.picture_listeners.append(self._picture)

    def _installed(self) -> list[tuple[dict[str, Any], Any]]:
        """Settings with the registry that builds them. None of them without mmengine."""
        try:
            with hidden('transformers'):
                from mmengine.registry import VISBACKENDS
                from mmengine.visualization import vis_backend  # noqa: F401  registers the back ends
        except ImportError as error:
            kinds = listing(str(settings.get('type')) for settings in self.settings)
            logger.warning("left out: the logging back ends %s need mmengine (%s); pip install 'vq[mm]'", kinds, error)
            return []
        return [(settings, VISBACKENDS) for settings in self.settings]

    def _build(self, settings: dict[str, Any], registry: Any) -> Any:
        kind = settings.get('type', '')
        settings.setdefault('save_dir', str(self.runner.work_dir / 'backends' / str(kind).removesuffix('VisBackend').lower()))
        if kind == 'WandbVisBackend' and self.wandb_id is not None:
            settings['init_kwargs'] = {**settings.get('init_kwargs', {}), 'id': self.wandb_id, 'resume': 'must'}
        try:
            backend = registry.build(settings)
            experiment = backend.experiment  # opens the files now, so that a missing package is said before training
        except ImportError as error:
            reason = str(error).strip().splitlines()[-1]
            extra = EXTRAS.get(kind, 'mm')
            logger.warning(
                "left out: the logging back end %s is not installed (%s); pip install 'vq[%s]'", kind, reason, extra
            )
            return None
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f'callbacks: the logging back end {kind!r} cannot be started: {error}',
                'See the extras tensorboard and wandb, and the settings of this mmengine back end.',
            ) from error
        if kind == 'WandbVisBackend':
            self.wandb_id = experiment.run.id if getattr(experiment, 'run', None) is not None else None
        return backend

    def _scalars(self, step: int, kind: str, values: dict[str, Any]) -> None:
        flat = dict(_flatten(values, f'{kind}/'))
        for backend in self.backends:
            backend.add_scalars(flat, step=step)

    def _picture(self, step: int, name: str, image: Tensor) -> None:
        for backend in self.backends:
            backend.add_image(name, image.permute(1, 2, 0).numpy(), step=step)

    def after_run(self) -> None:
        for backend in self.backends:
            backend.close()
        self.backends.clear()

    def on_error(self, error: BaseException) -> None:
        self.after_run()

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
