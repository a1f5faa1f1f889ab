"""The default strategy: one device for one rank, DDP for several."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from vq.core.environment import ranks
from vq.registries import VQStrategyRegistry
from vq.strategies.base import BaseStrategy, Precision
from vq.strategies.compiling import CompileSettings
from vq.strategies.ddp import DDPStrategy

Became = Literal['base', 'ddp']


@VQStrategyRegistry.register_()
class AutoStrategy(DDPStrategy):
    """``base`` for one rank, ``ddp`` for several. The settings are those of DDPStrategy.

    became  what it is in this run. Commands set it when they compose the config, so that the config in a run folder says
            it; checkpoints have it as the name of their strategy. None: by the number of ranks
    """

    name: ClassVar[str] = 'auto'

    def __init__(
        self,
        device: str = 'auto',
        precision: Precision = 'fp32',
        accumulate: int = 1,
        clip: float | None = None,
        compile: bool | str | CompileSettings = False,
        channels_last: bool = False,
        deterministic: bool = False,
        find_unused_parameters: bool = False,
        timeout: float = 600.0,
        checkpoint_activations: bool | tuple[str, ...] = False,
        became: Became | None = None,
    ) -> None:
        super().__init__(
            device=device,
            precision=precision,
            accumulate=accumulate,
            clip=clip,
            compile=compile,
            channels_last=channels_last,
            deterministic=deterministic,
            find_unused_parameters=find_unused_parameters,
            timeout=timeout,
            checkpoint_activations=checkpoint_activations,
        )
        self.became: Became = became or ('ddp' if ranks() > 1 else 'base')
        kind = DDPStrategy if self.became == 'ddp' else BaseStrategy
        self.name, self.distributed = kind.name, kind.distributed  # type: ignore[misc]

    def start(self) -> None:
        if self.became == 'ddp':
            super().start()
        else:
            BaseStrategy.start(self)

    def wrap_one(self, root: nn.Module) -> nn.Module:
        return super().wrap_one(root) if self.became == 'ddp' else root
