"""``diffusion.py --energy``: a training step of an energy against that of the same network without one, at equal batch.

An energy takes a forward pass, its gradient by z, and the backward pass of both. Of matrix products that is 6 forward passes
against 3 of plain diffusion, so that a step takes 2 times as long at least.

First, equality: loss and gradients of the energy with the derivatives of ``vq/nn/twice.py``, and with those that torch makes.
Memory is that of a step with a learned step size, whose inner loop keeps its steps, or only their inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from _common import REPEATS, in_turns, must_be_equal, paired_ratio, peak_memory, rounded, table
from _diffusion_sides import Ours, Size, batch_of, build

from vq.nn import twice

AIM = 2.5  # times the plain step
FORMS = ('mean_then_head', 'head_then_mean', 'dot')
INNER = 4  # steps of the inner loop whose memory is measured


@contextmanager
def of_torch() -> Iterator[None]:
    """Second derivatives inside are those that torch makes of its own first ones."""
    with patch.object(twice, 'applies', lambda *values: False):
        yield


def check_energy(size: Size) -> dict[str, float]:
    """Loss and gradients of the first step, both ways."""
    batch, found = batch_of(size, size.rows), {}
    for form in FORMS:
        ours, plain = (Ours(build(size, drop=0.0, energy={'reduction': form})) for _ in range(2))
        ours.step(batch, update=False)
        with of_torch():
            plain.step(batch, update=False)
        off = abs(float(ours.loss - plain.loss)) / float(plain.loss)
        must_be_equal(f'loss of {form}, written derivatives and those of torch', off < 1e-5, f'to {off:.0e}')
        one, other = ours.gradients(), plain.gradients()
        assert one.keys() == other.keys()
        floor = 1e-3 * max(float(value.abs().max()) for value in other.values())
        apart = max(
            float((one[name] - value).abs().max()) / max(float(value.abs().max()), floor) for name, value in other.items()
        )
        must_be_equal(f'gradients of {form}, written derivatives and those of torch', apart < 1e-3, f'to {apart:.0e}')
        found[form] = rounded(apart, 2)
    return found


def time_energy(size: Size) -> dict[str, Any]:
    batch, plain = batch_of(size, size.rows), Ours(build(size))
    sides: dict[str, Callable[[], object]] = {'plain': lambda: plain.step(batch)}
    for form in FORMS:
        ours = Ours(build(size, energy={'reduction': form}))
        sides[form] = lambda ours=ours: ours.step(batch)  # type: ignore[misc]
    of_one = Ours(build(size, energy={}))

    def derived() -> None:
        with of_torch():
            of_one.step(batch)

    sides[f'{FORMS[0]}, derivatives of torch'] = derived
    times = in_turns(sides, REPEATS)
    wall, cpu = ({name: paired_ratio(getattr(time, kind), getattr(times['plain'], kind)) for name, time in times.items()}
                 for kind in ('wall', 'cpu'))  # fmt: skip
    rows = [(name, 1e3 * time.median, 1e3 * time.cpu_median, wall[name], cpu[name]) for name, time in times.items()]
    table(f'energy, training step, {size.name}, {size.rows} images', ('', 'ms', 'cpu ms', 'x plain', 'x plain, cpu'), rows)
    print(f'the step of an energy takes {cpu[FORMS[0]]:.3g} times the processor time of the plain step, aim at most {AIM}')
    figures = {name: {**time.figures(), 'times_plain': rounded(wall[name]), 'cpu_times_plain': rounded(cpu[name])}
               for name, time in times.items()}  # fmt: skip
    return {'images': size.rows, 'sides': figures, 'cpu_times_plain': rounded(cpu[FORMS[0]]), 'aim': AIM,
            'aim_met': cpu[FORMS[0]] <= AIM}  # fmt: skip


def memory_of_energy(size: Size) -> dict[str, float | None]:
    """MiB at the peak of a step, beyond the memory before."""
    batch, found = batch_of(size, size.rows), dict[str, float | None]()
    loss = {'type': 'RefinementLoss', 'count': INNER, 'growth': 0.0, 'most': INNER}
    learned = {'energy': {'learn_step': True}}
    cases: dict[str, dict[str, Any]] = {
        'plain': {},
        'energy': {'energy': {}},
        f'{INNER} inner steps that are kept': {**learned, 'losses': {'refinement': {**loss, 'recompute': False}}},
        f'{INNER} inner steps that run again': {**learned, 'losses': {'refinement': {**loss, 'recompute': True}}},
    }
    for name, case in cases.items():
        ours = Ours(build(size, **case))
        ours.step(batch)  # the states of the optimizer are there
        found[name] = peak_memory(lambda ours=ours: ours.step(batch))  # type: ignore[misc]
    table(f'peak memory of a step, {size.name}, {size.rows} images', ('', 'MiB'), [*found.items()])
    return {name: None if value is None else rounded(value) for name, value in found.items()}


def compare_energy(sizes: list[Size]) -> dict[str, Any]:
    equality = {size.name: check_energy(size) for size in sizes}
    rows = {size.name: time_energy(size) for size in sizes}
    return {'equality': equality, 'rows': rows, 'memory': {size.name: memory_of_energy(size) for size in sizes}}
