"""Classifier-free guidance: the combination of two predictions, and schedules of its scale.

Schedules are functions ``(step, steps) -> scale``, for steps 0 to ``steps`` - 1. Below, t = step / (steps - 1) goes from 0
to 1. Scale 1 is no guidance (the prediction with the class), 0 would be the prediction without a class.

Diffusion calls them with step = 1 - time, steps = 2, so that t goes from 0 at noise to 1 at data. ``interval`` counts steps
and is for tokens; ``window`` is for diffusion.
"""

from __future__ import annotations

import math

from torch import Tensor

from vq.core.errors import ConfigError
from vq.registries import VQGuidanceRegistry


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """u + s (c - u)."""
    return unconditional + scale * (conditional - unconditional)


def progress(step: float, steps: float) -> float:
    """t = step / (steps - 1): 0 at the first step, 1 at the last; 1 if there is only one step."""
    return step / (steps - 1) if steps > 1 else 1.0


@VQGuidanceRegistry.register_('ConstantGuidance')
def constant(step: float, steps: float, *, scale: float = 1.0) -> float:
    """s(t) = scale."""
    return scale


@VQGuidanceRegistry.register_('LinearGuidance')
def linear(step: float, steps: float, *, scale: float, start: float = 1.0) -> float:
    """s(t) = start + (scale - start) t."""
    return start + (scale - start) * progress(step, steps)


@VQGuidanceRegistry.register_('CosineGuidance')
def cosine(step: float, steps: float, *, scale: float, start: float = 1.0) -> float:
    """s(t) = start + (scale - start) (1 - cos(pi t)) / 2."""
    return start + (scale - start) * (1 - math.cos(math.pi * progress(step, steps))) / 2


@VQGuidanceRegistry.register_('PowerGuidance')
def power(step: float, steps: float, *, scale: float, exponent: float = 2.0, start: float = 1.0) -> float:
    """s(t) = start + (scale - start) t^exponent."""
    if not exponent > 0:
        raise ConfigError(f'exponent is {exponent}, and must be above 0', 'Set exponent=1.0 for a straight line.')
    return start + (scale - start) * math.pow(progress(step, steps), exponent)


@VQGuidanceRegistry.register_('IntervalGuidance')
def interval(step: float, steps: float, *, scale: float, first: int = 0, last: int) -> float:
    """s = scale for first <= step <= last, otherwise 1. LlamaGen's ``cfg_interval`` K is ``last=K + 1``."""
    if step % 1:
        raise ConfigError(
            'IntervalGuidance counts steps, and diffusion has times', 'Use WindowGuidance, with times from 0 to 1.'
        )
    if first > last:
        raise ConfigError(f'guidance from step {first} to step {last}', 'Set first to at most last; both are guided.')
    return scale if first <= step <= last else 1.0


@VQGuidanceRegistry.register_('WindowGuidance')
def window(step: float, steps: float, *, scale: float, first: float = 0.0, last: float = 1.0) -> float:
    """s = scale for noise times first <= 1 - t <= last, otherwise 1. 1 is noise, 0 is data: last=0.9 leaves out the start."""
    if not 0 <= first <= last <= 1:
        raise ConfigError(f'guidance from time {first} to time {last}', 'Set times from 0 (data) to 1 (noise), first to last.')
    slack = 1e-9  # of rounding
    return scale if first - slack <= 1 - progress(step, steps) <= last + slack else 1.0
