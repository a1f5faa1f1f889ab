"""Mapping of values to pixels of a chart, and round numbers for the ticks of its axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Scale:
    """Values ``low`` to ``high`` on pixels ``start`` to ``end``, in equal steps or, with ``log``, in equal ratios."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high], about ``about`` of them."""
    step = round_step((high - low) / max(about, 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [clean(index * step) for index in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest number >= ``least`` that is 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(clean(factor * power) for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Multiples of powers of ten within [low, high], at most about ``most``: by 1 to 9, by 1, 2, 5, by 1, 3 or by 1."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in (range(1, 10), (1, 2, 5), (1, 3), (1,)):
        found = [
            value
            for decade in decades
            for factor in factors
            if low * (1 - 1e-9) <= (value := clean(factor * 10.0**decade)) <= high * (1 + 1e-9)
        ]
        if len(found) <= most:
            break
    return found


def spread(values: Iterable[float], log: bool, zero: bool = False) -> tuple[float, float]:
    """Lowest and highest of the finite values, with a margin. Equal ones are moved apart; ``zero`` includes 0."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if zero and not log:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        return (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    room = 0.04
    if log:
        grow = (high / low) ** room
        return low / grow, high * grow
    margin = (high - low) * room
    return (low if zero and low == 0 else low - margin), high + margin


def clean(value: float) -> float:
    """``value`` without rounding errors: 0.30000000000000004 becomes 0.3."""
    return float(f'{value:.10g}')


def show(value: float) -> str:
    """A number as text for axes and tables: 4 digits, no trailing zeros, a thin space between thousands."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return '0'
    size = abs(value)
    if size < 1e-4:
        mantissa, exponent = f'{value:.2e}'.split('e')
        return f'{float(mantissa):g}e{int(exponent)}'
    text = f'{value:,.0f}' if size >= 1e4 else f'{float(f"{value:.4g}"):,.10g}'
    return text.replace(',', '\u2009') if size >= 1e4 else text.replace(',', '')
