"""Workers of a loader never destroy what the main process left behind: its threads do not exist in them."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal

import numpy as np
import pytest

from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import training_plan
from vq.interfaces import Dataset, Sample

MAIN = os.getpid()


class Ring:
    """Garbage that only a collection finds. It kills a worker that destroys it, as a C++ object with threads can."""

    destroyed = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        if os.getpid() != MAIN:
            os.kill(os.getpid(), signal.SIGKILL)
        Ring.destroyed += 1


class Collecting(Dataset):
    """A sample is what a collection in the worker finds of the worker's own garbage."""

    def __len__(self) -> int:
        return 8

    def id_of(self, index: int) -> str:
        return str(index)

    def load(self, index: int, stream: random.Random) -> Sample:
        own: list[object] = []
        own.append(own)
        del own
        image = np.zeros((2, 2, 3), np.uint8)
        return Sample(image=image, id=str(index), extra={'enabled': gc.isenabled(), 'found': gc.collect()})


@pytest.mark.slow
@pytest.mark.parametrize('enabled', [True, False])
def test_garbage_of_the_main_process_stays_until_it_collects(enabled):
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.collect()
    gc.disable()
    Ring.destroyed = 0
    Ring()
    try:
        if enabled:
            gc.enable()
        dataset = Collecting()
        with Loader(dataset, training_plan(8, 4, 0, 1, 0), LoaderSettings(4, num_workers=2), 0, training=True) as loader:
            batches = list(itertools.islice(loader, 4))
        assert gc.isenabled() == enabled
        assert all(all(batch.extra['enabled']) for batch in batches)  # workers collect their own garbage
        assert all(min(batch.extra['found']) > 0 for batch in batches)
        if not enabled:
            assert Ring.destroyed == 0
            gc.collect()
            assert Ring.destroyed == 1
        assert gc.get_freeze_count() <= frozen
    finally:
        (gc.enable if before else gc.disable)()


def test_a_signal_handler_of_the_main_process_stays():
    """Only the table of handlers holds it, so a worker that ignores the signal instead would destroy it."""
    before = signal.signal(signal.SIGUSR1, Handler().handle)
    try:
        dataset = Collecting()
        with Loader(dataset, training_plan(8, 4, 0, 1, 0), LoaderSettings(4, num_workers=2), 0, training=True) as loader:
            batches = list(itertools.islice(loader, 4))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(batches) == 4


class Handler:
    """A launcher in this process, for example, whose handler holds a store with a thread."""

    def handle(self, number: int, frame: object) -> None: ...

    def __del__(self) -> None:
        if os.getpid() != MAIN:
            os.kill(os.getpid(), signal.SIGKILL)
