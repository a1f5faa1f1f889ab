"""XLA: a TPU, or the CPU with ``PJRT_DEVICE=CPU``. One device for now; SPMD over several comes with its own options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import nn

from vq.core.errors import UserError
from vq.registries import VQStrategyRegistry
from vq.strategies.base import BaseStrategy, Precision


@VQStrategyRegistry.register_()
class XLAStrategy(BaseStrategy):
    """Steps are recorded and run as one graph; the graph is cut after each step. Never run on a TPU so far."""

    name: ClassVar[str] = 'xla'

    def __init__(self, precision: Precision = 'fp32', accumulate: int = 1, clip: float | None = None) -> None:
        super().__init__('xla', precision, accumulate, clip)
        if precision == 'fp16':
            raise UserError('XLA devices compute in bf16, not fp16', "Use precision='bf16'.")

    def choose_device(self) -> torch.device:
        try:
            import torch_xla
        except ImportError as error:
            raise UserError('the XLA strategy needs torch_xla', "Install it with pip install 'vq[xla]'.") from error
        return torch_xla.device()

    @contextlib.contextmanager
    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        yield
        self._run()

    def finish_step(self) -> None:
        self._run()

    def _run(self) -> None:
        import torch_xla

        torch_xla.sync()
