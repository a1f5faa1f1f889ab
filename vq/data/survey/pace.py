"""How fast a dataset is loaded, as training loads it, without a model."""

from __future__ import annotations

import dataclasses
import time
from typing import NamedTuple

from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.interfaces import Dataset

LEAST = 2  # batches that are timed, however slow they are


class Pace(NamedTuple):
    """``rate``: images per second of one process with ``workers``."""

    rate: float
    batches: int
    batch_size: int
    workers: int
    images: int  # of the split

    @property
    def epoch(self) -> float:
        """Seconds for all images, once."""
        return self.images / self.rate


def measure(dataset: Dataset, settings: LoaderSettings, seed: int, seconds: float) -> Pace:
    """Load batches for about ``seconds``. The first batches, which workers prefetch while they start, are not timed."""
    batch_size = settings.batch_size
    # what cannot be read was listed before; here it must not end the measurement
    settings = dataclasses.replace(settings, bad_images='skip', bad_image_cap=1.0)
    plan = training_plan(len(dataset), batch_size, 0, 1, seed)
    with Loader(dataset, plan, settings, seed, training=True) as loader:
        for _ in range(1 + settings.num_workers * settings.prefetch):
            next(loader)
        start, batches = time.monotonic(), 0
        while batches < LEAST or time.monotonic() - start < seconds:
            next(loader)
            batches += 1
        elapsed = time.monotonic() - start
    return Pace(batches * batch_size / max(elapsed, 1e-9), batches, batch_size, settings.num_workers, len(dataset))
