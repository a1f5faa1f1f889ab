"""Schedules: factors on a base learning rate. ``length=None`` means the length of the run. ``bind`` fills the length in
when the run starts, so a schedule follows an overridden ``iters``.
"""

from __future__ import annotations

import math

from vq.core.errors import ConfigError
from vq.interfaces import Schedule
from vq.registries import VQScheduleRegistry


class _WarmupSchedule(Schedule):
    """Linear warm-up from ``start`` to 1 over ``warmup`` steps, then ``after(t)`` with t in [0, 1] over the rest."""

    def __init__(self, warmup: int, length: int | None, start: float) -> None:
        if warmup < 0:
            raise ConfigError(f'warmup is {warmup}', 'Give a number of iterations that is not negative.')
        self.warmup, self.length, self.start = warmup, length, start

    def bind(self, iters: int) -> None:
        self.length = iters if self.length is None else self.length
        if self.warmup > self.length:
            raise ConfigError(
                f'warmup takes {self.warmup} iterations of a schedule of {self.length}', 'Shorten warmup or train longer.'
            )

    def __call__(self, step: int) -> float:
        """The factor for step 1, 2, ... of the run."""
        assert self.length is not None, 'bind() was not called'
        if step <= self.warmup:
            return self.start + (1 - self.start) * step / max(self.warmup, 1)
        return self.after(min(1.0, (step - self.warmup) / max(self.length - self.warmup, 1)))

    def after(self, t: float) -> float:
        raise AssertionError('each schedule says what comes after the warm-up')


@VQScheduleRegistry.register_()
class ConstantSchedule(_WarmupSchedule):
    """1 after the warm-up."""

    def __init__(self, warmup: int = 0, start: float = 0.0) -> None:
        super().__init__(warmup, None, start)

    def after(self, t: float) -> float:
        return 1.0


@VQScheduleRegistry.register_()
class LinearSchedule(_WarmupSchedule):
    """A straight line from 1 to ``final``."""

    def __init__(self, warmup: int = 0, final: float = 0.0, length: int | None = None, start: float = 0.0) -> None:
        super().__init__(warmup, length, start)
        self.final = final

    def after(self, t: float) -> float:
        return 1 + (self.final - 1) * t


@VQScheduleRegistry.register_()
class CosineSchedule(_WarmupSchedule):
    """Half a cosine from 1 to ``final``: final + (1 - final) (1 + cos pi t) / 2."""

    def __init__(self, warmup: int = 0, final: float = 0.0, length: int | None = None, start: float = 0.0) -> None:
        super().__init__(warmup, length, start)
        self.final = final

    def after(self, t: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * t)) / 2
