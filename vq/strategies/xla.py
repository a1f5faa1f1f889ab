"""XLA: TPUs, or the CPU with ``PJRT_DEVICE=CPU``. One process drives all devices of the host (SPMD)."""

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
from torch.optim import Optimizer

from vq.core.errors import ConfigError, UserError
from vq.core.records import Batch
from vq.registries import VQStrategyRegistry
from vq.strategies.base import BaseStrategy, Precision

FUNCTIONALIZATION = 'XLA_DISABLE_FUNCTIONALIZATION'
AXIS = 'data'


@VQStrategyRegistry.register_()
class XLAStrategy(BaseStrategy):
    """Operations are recorded, and run as one compiled graph at the end of a step. See docs/tpu.md. Never run on a TPU.

    With several devices every tensor of a batch is sharded along its first dimension, and parameters are replicated. XLA
    inserts the collectives, so ``vq.core.collectives`` is the identity and ``batch_size`` counts all devices. A batch that
    does not divide among the devices is an error in training; in evaluation every device computes it whole. Products of
    fp32 matrices are in fp32.

    precision          fp32, or bf16 autocast of forward passes; fp16 is an error
    accumulate         micro-batches per optimizer step
    clip               bound on the gradient norm, unless an optimizer has its own
    spmd               use all devices; False: only the first
    compile_cache      folder of compiled graphs, reused by the next start
    functionalization  False: torch_xla's older treatment of views and in-place writes, XLA_DISABLE_FUNCTIONALIZATION=1
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
        self._spmd: Any = None  # the module torch_xla.distributed.spmd, if there are several devices
        self._mesh: Any = None
        self._divides = True  # whether the last batch divides among the devices

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
            runtime.use_spmd()  # must precede the first use of a device; all devices are one virtual device then
        if runtime.process_count() > 1:
            raise UserError(
                f'the XLA strategy runs on one host, and this is one of {runtime.process_count()} processes',
                'Start one process, on a host that sees all devices.',
            )
        self.devices = runtime.global_runtime_device_count() if runtime.is_spmd() else 1
        if self.devices > 1:
            import torch_xla.distributed.spmd

            self._spmd = torch_xla.distributed.spmd
            self._mesh = self._spmd.Mesh(range(self.devices), (self.devices,), (AXIS,))
        device: torch.device = torch_xla.device()
        return device

    def _set_functionalization(self) -> None:
        """Set the environment variable. torch_xla reads it once, on import."""
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
            return  # opened by an earlier runner of this process
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            runtime.initialize_cache(folder)
        except AssertionError as error:
            raise UserError(
                f'compile_cache {folder} comes too late: this process has compiled programs already',
                'Set XLA_PERSISTENT_CACHE_PATH in the environment instead.',
            ) from error

    def wrap(self, roots: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        self._run_graph()  # operations of the set-up would make the first step another graph
        return super().wrap(roots)

    def _run_graph(self) -> None:
        """Hand the recorded operations to the devices as one graph, without a host sync."""
        import torch_xla

        torch_xla.sync()

    # numbers and results

    def as_input(self, value: float) -> float | Tensor:
        """XLA bakes Python floats and 0-d CPU tensors into the graph, so a changing float would recompile every step. As
        element 0 of a 1-d tensor it is an input.
        """
        return torch.tensor([value]).to(self.device)[0]

    def before_reading(self) -> None:
        self._run_graph()  # else every read would compile a graph of its own

    def joined(self, values: list[Tensor]) -> Tensor:
        return torch.cat([value.cpu() for value in values])  # torch.cat on the device would be one more graph

    def adapt(self, optimizer: Optimizer) -> None:
        """Adam keeps its step count on the device: bias corrections are computed there, and not baked into the graph."""
        for group in optimizer.param_groups:
            if 'capturable' in group:
                group['capturable'] = True

    # one step

    def to_device(self, batch: Batch) -> Batch:
        self._run_graph()  # operations left by the step before: moving averages, sums of metrics
        import torch_xla.core.xla_model as model

        # torch.manual_seed does not seed XLA; a seed from Python's generator makes a resumed run draw the same numbers
        model.set_rng_state(random.getrandbits(31))
        moved = super().to_device(batch)
        self._divides = len(batch) % self.devices == 0
        if self._mesh is not None and self._divides:
            # not keys and categories (B,): reading a sharded tensor compiles a graph that gathers it
            for value in [*vars(moved).values(), *moved.extra.values()]:
                if isinstance(value, Tensor) and value.ndim > 1 and len(value) == len(batch):
                    self._spmd.mark_sharding(value, self._mesh, (AXIS, *[None] * (value.ndim - 1)))
        return moved

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        with super().autocast():
            yield
        if not torch.is_grad_enabled():
            self._run_graph()  # the step of an evaluation: metrics read results, and record no graph of the whole model

    @contextlib.contextmanager
    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        if not self._divides:
            raise ConfigError(
                f'a batch does not divide among {self.devices} devices',
                'Under XLA batch_size counts all devices together: use a multiple of their number, or spmd=False.',
            )
        yield
        if not last:
            self._run_graph()

    def finish_step(self) -> None:
        self._run_graph()
