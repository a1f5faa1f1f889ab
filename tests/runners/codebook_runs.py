"""Training runs that record their codebooks, also on the ranks of the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.runners.support import build_trainer, quiet
from vq.core.random import python_stream
from vq.core.records import to_float
from vq.interfaces import Callback
from vq.io import checkpoints
from vq.runners.codebooks import find_quantizer
from vq.runners.resuming import Resume

CODEBOOK = dict(type='VectorQuantizer', codebook_size=32, embedding_dim=8)
QUANTIZERS: dict[str, dict[str, Any]] = {
    'gradient': CODEBOOK,
    'normalized': dict(**CODEBOOK, normalize=True),
    'cosine': dict(**CODEBOOK, distance='cosine'),
    'ema': dict(**CODEBOOK, update=dict(type='EMAUpdate', decay=0.9)),
    'residual': dict(type='ResidualQuantizer', quantizer=dict(**CODEBOOK, update=dict(type='EMAUpdate', decay=0.9)), stages=2),
    'shared': dict(type='ResidualQuantizer', quantizer=CODEBOOK, stages=2, shared=True),
    'grouped': dict(
        type='GroupedQuantizer',
        quantizer=[
            dict(type='VectorQuantizer', codebook_size=32, embedding_dim=4),
            dict(type='FiniteScalarQuantizer', levels=[3] * 4),
        ],
    ),
    'multi_scale': dict(type='MultiScaleQuantizer', quantizer=CODEBOOK, scales=(1, 2, 4, 16), convolutions=2),
    'none': dict(type='FiniteScalarQuantizer', levels=[3] * 8),
}


class Watch(Callback):
    """Records the quantizer's state before the first and after every step, the ids of every batch, and random numbers."""

    def __init__(self) -> None:
        self.start: dict[str, Tensor] = {}
        self.states: list[dict[str, Tensor]] = []
        self.ids: list[list[str]] = []
        self.random: list[float] = []

    def _state(self) -> dict[str, Tensor]:
        _, quantizer = find_quantizer(self.runner.model, 'Watch')
        return {name: value.detach().clone() for name, value in quantizer.state_dict().items()}

    def before_step(self) -> None:
        self.start = self.start or self._state()

    def after_batch(self, batch: Any, outputs: Any) -> None:
        self.ids.append(list(batch.id))

    def after_step(self) -> None:
        self.states.append(self._state())
        self.random.append(torch.rand(()).item())


def make(folder: Path, kind: str, *callbacks: dict[str, Any], strategy: dict[str, Any] | None = None, **options: Any) -> Any:
    """A trainer on digits, with a Watch at the end of its callbacks: ``trainer.callbacks['watch']``."""
    overrides: dict[str, Any] = {
        '.trainer.model.tokenizer.quantizer': QUANTIZERS[kind],
        **quiet(*callbacks),
    }
    if strategy is not None:
        overrides['.trainer.strategy'] = strategy
    trainer = build_trainer(folder, dict(iters=4) | options, overrides)
    trainer.callbacks['watch'] = Watch()
    return trainer


def encoded(trainer: Any, ids: list[list[str]]) -> Tensor:
    """The encoder's current features of the samples ``ids``, (N, C)."""
    tokenizer, dataset = trainer.model.tokenizer.eval(), trainer.dataset
    places = {dataset.id_of(index): index for index in range(len(dataset))}
    images = [dataset.load(places[name], python_stream('any'))['image'] for batch in ids for name in batch]
    with torch.no_grad():
        latent = tokenizer.encode(to_float(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)))
    return latent.mean.permute(0, 2, 3, 1).flatten(0, 2)


def run(folder: str, kind: str, callbacks: list[dict[str, Any]], strategy: str, options: dict[str, Any]) -> dict[str, Any]:
    """Train, and return the record of a rank."""
    trainer = make(Path(folder), kind, *callbacks, strategy=dict(type=strategy), **options)
    trainer.run()
    watch = trainer.callbacks['watch']
    shadow = {
        name: value for callback in trainer.callbacks.values() for name, value in getattr(callback, 'shadow', {}).items()
    }
    return {
        'start': watch.start,
        'states': watch.states,
        'ids': watch.ids,
        'shadow': {name: value for name, value in shadow.items() if 'quantizer' in name},
    }


def resumed(trainer: Any, run_folder: Path, step: int) -> Any:
    """The trainer, resumed from a checkpoint."""
    path = run_folder / 'checkpoints' / f'iter_{step}'
    trainer.resumed = Resume(path, checkpoints.load(path, rank=0))
    return trainer
