"""XLA: TPUs, or the CPU with ``PJRT_DEVICE=CPU``. One process, one program over all devices of the host (SPMD)."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.core.records import Batch
from vq.registries import VQStrategyRegistry
from vq.strategies.base import BaseStrategy, Precision

FUNCTIONALIZATION = 'XLA_DISABLE_FUNCTIONALIZATION'
AXIS = 'data'


def cut_graph() -> None:
    """Hand what was recorded so far to the device as one program. Nobody waits for it."""
    import torch_xla

    torch_xla.sync()


@VQStrategyRegistry.register_()
class XLAStrategy(BaseStrategy):
    """Operations are recorded, and handed over as one program at the end of a step; see docs/tpu.md. Never run on a TPU.

    With several devices every tensor of a batch is cut along its first dimension and parameters are on all of them: XLA
    finds the communication itself, so collectives are the identity and ``batch_size`` counts all devices together. A batch
    that does not divide is refused in training, and computed by every device as a whole in evaluation. Products of fp32
    matrices are in fp32.

    precision          bf16 autocast of forward passes; there is no fp16
    accumulate         micro-batches per optimizer step
    clip               bound on the gradient norm, unless an optimizer has its own
    spmd               use all devices; False: only the first
    compile_cache      folder in which compiled programs are kept for the next start
    functionalization  False: torch_xla's older way to treat views and writes in place, XLA_DISABLE_FUNCTIONALIZATION=1
    """

    name: ClassVar[str] = 'xla'

    def __init__(
        self,
        precision: Precision = 'fp32',
        accumulate: int = 1,
        clip: float | None = None,
        spmd: bool = True,
        compile_cache: str | None = None,
        functionalization: bool = True,
    ) -> None:
        super().__init__('xla', precision, accumulate, clip)
        if precision == 'fp16':
            raise ConfigError('XLA devices compute in bf16, not fp16', "Use precision='bf16'.")
        self.spmd, self.compile_cache, self.functionalization = spmd, compile_cache, functionalization
        self.devices = 1
        self._spmd: Any = None  # the module, where there are several devices
        self._mesh: Any = None
        self._divides = True  # the last batch, among the devices

    # launch

    def choose_device(self) -> torch.device:
        self._set_functionalization()
        try:
            import torch_xla
            import torch_xla.backends
            import torch_xla.runtime
        except ImportError as error:
            raise UserError('the XLA strategy needs torch_xla', "Install it with pip install 'vq[xla]'.") from error
        runtime: Any = torch_xla.runtime
        if self.compile_cache is not None:
            self._open_cache(runtime)
        if torch_xla.backends.get_mat_mul_precision() != 'highest':  # a TPU would multiply fp32 matrices in bf16
            torch_xla.backends.set_mat_mul_precision('highest')
        if self.spmd and not runtime.is_spmd():
            runtime.use_spmd()  # from here on there is one virtual device; it must come before the first use of a device
        if runtime.process_count() > 1:
            raise UserError(
                f'the XLA strategy runs on one host, and this is one of {runtime.process_count()} processes',
                'Start it once, on a host that sees all its devices.',
            )
        self.devices = runtime.global_runtime_device_count() if runtime.is_spmd() else 1
        if self.devices > 1:
            import torch_xla.distributed.spmd

            self._spmd = torch_xla.distributed.spmd
            self._mesh = self._spmd.Mesh(range(self.devices), (self.devices,), (AXIS,))
        return torch_xla.device()

    def _set_functionalization(self) -> None:
        """torch_xla reads it once, when it is imported."""
        disabled = os.environ.get(FUNCTIONALIZATION, '0') not in ('', '0')
        if self.functionalization or disabled:
            return
        if 'torch_xla' in sys.modules:
            raise UserError(
                'functionalization=False comes too late: this process has imported torch_xla already',
                f'Set {FUNCTIONALIZATION}=1 in the environment.',
            )
        os.environ[FUNCTIONALIZATION] = '1'

    def _open_cache(self, runtime: Any) -> None:
        assert self.compile_cache is not None
        folder = str(Path(self.compile_cache).absolute())
        if os.environ.get('XLA_PERSISTENT_CACHE_PATH') == folder:
            return  # an earlier runner of this process has opened it
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            runtime.initialize_cache(folder)
        except AssertionError as error:
            raise UserError(
                f'compile_cache {folder} comes too late: this process has compiled programs already',
                'Set XLA_PERSISTENT_CACHE_PATH in the environment instead.',
            ) from error

    def wrap(self, roots: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        cut_graph()  # what the set-up recorded is no part of the first step
        return super().wrap(roots)

    # one step

    def to_device(self, batch: Batch) -> Batch:
        cut_graph()  # what the step before left open: moving averages, sums of metrics
        import torch_xla.core.xla_model as model

        # torch seeds every device but this one; from Python's generator, so that a resumed run draws the same numbers
        model.set_rng_state(random.getrandbits(31))
        moved = super().to_device(batch)
        self._divides = len(batch) % self.devices == 0
        if self._mesh is not None and self._divides:
            # not keys and categories, one number each: to read what is cut would compile a program to join it, every time
            for value in [*vars(moved).values(), *moved.extra.values()]:
                if isinstance(value, Tensor) and value.ndim > 1 and len(value) == len(batch):
                    self._spmd.mark_sharding(value, self._mesh, (AXIS, *[None] * (value.ndim - 1)))
        return moved

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        with super().autocast():
            yield
        if not torch.is_grad_enabled():
            cut_graph()  # the step of an evaluation: metrics then read results, and not the way to them

    @contextlib.contextmanager
    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        if not self._divides:
            raise ConfigError(
                f'a batch does not divide among {self.devices} devices',
                'Under XLA batch_size counts all devices together: use a multiple of their number, or spmd=False.',
            )
        yield
        if not last:
            cut_graph()

    def finish_step(self) -> None:
        cut_graph()
