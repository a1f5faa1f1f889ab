"""One process per device with averaged gradients: nccl on GPUs, gloo on CPUs. Started by ``auto_torchrun``."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.distributed as distributed
from torch import nn

from vq.core import collectives
from vq.core.environment import number, ranks
from vq.core.errors import UserError
from vq.registries import VQStrategyRegistry
from vq.strategies import peers
from vq.strategies.base import BaseStrategy, Precision
from vq.strategies.compiling import CompileSettings

LAST_ANSWER = 10.0  # seconds that the end of a run waits for a flag the others may still raise


@VQStrategyRegistry.register_()
class DDPStrategy(BaseStrategy):
    """DistributedDataParallel, one wrapper per optimizer root.

    Buffers are never broadcast: codebooks keep equal by all-reducing their own statistics. A plain ``python`` call
    without launch variables runs as a group of one.

    find_unused_parameters  only if a root leaves parameters without a gradient in some steps
    timeout                 seconds before a collective that others never joined becomes an error
    """

    name: ClassVar[str] = 'ddp'
    distributed: ClassVar[bool] = True

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
    ) -> None:
        super().__init__(device, precision, accumulate, clip, compile, channels_last, deterministic, checkpoint_activations)
        self.find_unused_parameters, self.timeout = find_unused_parameters, timeout
        self._started_group = False
        self._control: Any = None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def start(self) -> None:
        local_rank = int(os.environ.get('LOCAL_RANK', 0))
        if self.device_name == 'auto' and torch.cuda.is_available():
            # one visible GPU per task (srun --gpus-per-task=1) is that task's own, whatever its local rank
            self.device_name = f'cuda:{0 if torch.cuda.device_count() == 1 else local_rank}'
        super().start()
        if self.device.type == 'cuda':
            if (self.device.index or 0) >= torch.cuda.device_count():
                raise UserError(
                    f'local rank {local_rank} has no GPU: this machine shows {torch.cuda.device_count()}',
                    'Start at most one process per GPU: auto_torchrun --nproc-per-node N.',
                )
            torch.cuda.set_device(self.device)
        if not distributed.is_initialized():
            self._init_group()
        self.rank, self.world_size = distributed.get_rank(), distributed.get_world_size()
        # flags of the host (a signal came) travel over gloo, so that asking for them never waits for the GPU
        timeout = datetime.timedelta(seconds=self.timeout)
        self._control = distributed.new_group(backend='gloo', timeout=timeout) if self.world_size > 1 else None
        collectives.install(collectives.TorchDistributed() if self.world_size > 1 else None)

    def _init_group(self) -> None:
        backend = 'nccl' if self.device.type == 'cuda' else 'gloo'
        timeout = datetime.timedelta(seconds=self.timeout)
        if 'RANK' in os.environ:
            distributed.init_process_group(backend, timeout=timeout)
        else:
            alone = distributed.HashStore()  # type: ignore[attr-defined]
            distributed.init_process_group(backend, timeout=timeout, store=alone, rank=0, world_size=1)
        self._started_group = True

    def stop(self) -> None:
        """Leave the group. An error that means the loss of another rank goes on as a message about it."""
        error, lost = sys.exc_info()[1], None
        if error is not None and peers.is_loss(error):
            store = distributed.distributed_c10d._get_default_store() if distributed.is_initialized() else None
            lost = peers.explain(error, number('RANK', 0), ranks(), self.timeout, store)
        # the group must not be destroyed while a reduction is in flight
        if self._pending is not None and lost is None:
            with contextlib.suppress(RuntimeError):  # after a failure the others may never answer
                self._pending[0].wait(datetime.timedelta(seconds=LAST_ANSWER))
        self._pending = None
        collectives.install(None)
        if self._started_group:
            distributed.destroy_process_group()
            self._started_group = False
        if lost is not None:
            raise lost from error

    def wrap_one(self, root: nn.Module) -> nn.Module:
        if not any(parameter.requires_grad for parameter in root.parameters()):
            return root
        devices = [self.device] if self.device.type == 'cuda' else None
        with warnings.catch_warnings():
            # torch 2.14's new name, forward_sync_buffers, would overwrite buffers of other ranks with those of rank 0 here
            warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated')
            return nn.parallel.DistributedDataParallel(
                root,
                device_ids=devices,
                broadcast_buffers=False,
                find_unused_parameters=self.find_unused_parameters,
                gradient_as_bucket_view=True,
            )

    @contextlib.contextmanager
    def micro_step(self, wrapped: Mapping[str, nn.Module], last: bool) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if not last:
                for module in wrapped.values():
                    if isinstance(module, nn.parallel.DistributedDataParallel):
                        stack.enter_context(module.no_sync())
            yield

    def agree(self, flag: bool) -> bool:
        """The answer is that of the previous call, so the reduction runs beside the step; all ranks get the same one."""
        if self.world_size == 1:
            return flag
        answer = False
        if self._pending is not None:
            work, value = self._pending
            work.wait()
            answer = bool(value)
        value = torch.tensor(float(flag))
        self._pending = (distributed.all_reduce(value, op=distributed.ReduceOp.MAX, group=self._control, async_op=True), value)
        return answer
