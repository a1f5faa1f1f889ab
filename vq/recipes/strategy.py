"""Device, precision and distribution over ranks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, merge, recipe

STRATEGIES = dict(auto='AutoStrategy', base='BaseStrategy', ddp='DDPStrategy', fsdp='FSDPStrategy', xla='XLAStrategy')


@recipe()
def strategy(
    given: Given,
    *,
    strategy: Annotated[str, 'auto (one rank: base, several: ddp), base, ddp, fsdp, xla, or a config without .py'] = 'auto',
    precision: Annotated[Literal['fp32', 'bf16', 'fp16'] | None, 'precision of forward passes; None: fp32'] = None,
    accumulate: Annotated[int | None, 'gradient accumulation: micro-batches per step; None: 1'] = None,
    device: Annotated[str | None, 'device of strategy base or auto: cpu, cuda:1, ...; None: the best available'] = None,
) -> Config:
    """Device, precision and distribution over ranks."""
    part = dict(type=STRATEGIES[strategy]) if strategy in STRATEGIES else given.load_with_all(f'{strategy}.py')
    settings = chosen(precision=precision, accumulate=accumulate, device=device if strategy in ('auto', 'base') else None)
    return dict(trainer=dict(strategy=merge(part, settings)))


def chosen(**settings: Any) -> dict[str, Any]:
    """Settings that are not None. A setting left out has the default of the part."""
    return {name: value for name, value in settings.items() if value is not None}
