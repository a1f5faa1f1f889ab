"""Between log lines a step has no host sync, which would wait for all queued work of the device.

On a GPU torch reports host syncs (``set_sync_debug_mode``). On the CPU, which has none, every operation that would cause a
host sync on a device raises an error during a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.runners.gan import write_gan_config
from tests.strategies.speed_runs import shapes
from vq.assembly.compose import compose
from vq.core.config import PyConfig
from vq.interfaces import Callback
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

aten = torch.ops.aten
# reading a value, and results whose size depends on values
WAITING = {
    *(aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.nonzero_numpy, aten.argwhere),
    *(aten.masked_select, aten._unique, aten._unique2, aten.unique_consecutive, aten.unique_dim, aten.bincount),
    *(aten.repeat_interleave, aten.allclose),
}
# functions that read a tensor outside of the dispatcher, or copy it to the host, which is invisible on a CPU
READING = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.item, Tensor.__array__, Tensor.__bool__}


class WaitError(AssertionError):
    """A step read a value of the device."""


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if func.overloadpacket in WAITING or masked:
            raise WaitError(f'{func} makes the host wait for the device')
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # by name alone: copies to a device (which here is the CPU) are how batches reach it
        to_host = func is Tensor.to and 'cpu' in [
            value for value in (*args[1:], *(kwargs or {}).values()) if isinstance(value, str)
        ]
        if func in READING or to_host:
            raise WaitError(f'{getattr(func, "__name__", func)} makes the host wait for the device')
        return func(*args, **(kwargs or {}))


@contextmanager
def nobody_waits(device: torch.device) -> Iterator[None]:
    if device.type == 'cuda':
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode('error')
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
    else:
        # the search reads values on a CPU, where this is free; here the CPU acts as a device
        with mock.patch('vq.quantizers.search_codes.reads_are_free', return_value=False), _Operations(), _Methods():
            yield


def shipped(name: str) -> Callable[[Path], PyConfig]:
    return lambda folder: compose(f'configs/{name}', {}, {}, tiny=True)


def gumbel(folder: Path) -> PyConfig:
    config = compose('configs/vqgan/gumbel_f8_8192_imagenet_ddp.py', {'strategy': 'base'}, {}, tiny=True)
    assert any(callback.type == 'AnnealCallback' for callback in config.trainer.callbacks if callback)
    return config


def adversarial(norm: str) -> Callable[[Path], PyConfig]:
    """An EMA codebook with restarts, an adaptive weight, R1, LeCam, clipping, a discriminator that is there from step 1."""
    return lambda folder: compose(str(write_gan_config(folder)), {'start': 0, 'norm': norm}, {}, tiny=False)


FORMS = {
    **{entry: shipped(entry) for entry in shapes() if entry.startswith('digits/')},
    'digits/fsq_sgd.py': shipped('digits/fsq_sgd.py'),
    'gumbel': gumbel,
    'adversarial': adversarial('batch'),
    'adversarial, activation norm': adversarial('act'),
}
RARE = 1000  # steps between two log lines


def open_trainer(folder: Path, make: Callable[[Path], PyConfig], device: str, **strategy: Any) -> Any:
    """A trainer after its first steps, with loaded batches, since loading happens in other processes."""
    config = make(folder)
    config.trainer.iters = 2 * RARE
    config.trainer.strategy = dict(type='BaseStrategy', device=device, **strategy)
    config.trainer.callbacks = [
        {**callback, 'interval': RARE} if 'interval' in callback else callback
        for callback in config.trainer.callbacks
        if callback and callback.type not in ('NoiseCallback', 'SampleRecorder', 'GitCallback', 'EvalCallback')
    ]
    trainer = VQRunnerRegistry.build(config.trainer, 'trainer')
    trainer.bind(RunContext('test', folder / 'run', random_weights=True))
    trainer.setup()
    trainer._call('before_run')
    with trainer.open_loader() as loader:
        held = [batch.pin_memory() if device == 'cuda' else batch for batch in itertools.islice(loader, 3)]
    trainer.batches = itertools.cycle(held)
    for _ in range(3):
        trainer.train_step()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ('form', 'strategy'),
    [
        *((form, {}) for form in FORMS),
        ('adversarial', dict(precision='bf16', clip=1.0)),
        ('adversarial', dict(precision='fp16')),
        ('digits/vq_plain.py', dict(accumulate=2, channels_last=True, checkpoint_activations=True)),
    ],
    ids=str,
)
def test_a_step_never_waits(form: str, strategy: dict[str, Any], tmp_path: Path) -> None:
    trainer = open_trainer(tmp_path, FORMS[form], 'cpu', **strategy)
    with nobody_waits(trainer.strategy.device):
        for _ in range(4):  # penalties come every second step
            trainer.train_step()
    trainer.guard.check()
    trainer._call('after_run')


@pytest.mark.gpu
@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
@pytest.mark.parametrize('form', FORMS)
def test_a_step_never_waits_for_a_gpu(form: str, precision: str, tmp_path: Path) -> None:
    trainer = open_trainer(tmp_path, FORMS[form], 'cuda', precision=precision)
    with nobody_waits(trainer.strategy.device):
        for _ in range(4):
            trainer.train_step()
    trainer.guard.check()
    trainer._call('after_run')


class TestTheGuardItself:
    @pytest.mark.parametrize(
        'read',
        [
            lambda x: float(x.sum()),
            lambda x: x.sum().item(),
            lambda x: x.tolist(),
            lambda x: x.numpy(),
            lambda x: x.cpu(),
            lambda x: x.to('cpu'),
            lambda x: 1 if x.sum() > 0 else 0,
            lambda x: x[x > 0],
            lambda x: x.nonzero(),
            lambda x: torch.unique(x),
            lambda x: torch.equal(x, x),
            lambda x: x.long().bincount(),
            lambda x: x.__setitem__(x > 0, x.sum()),
            lambda x: list(range(x.long()[0])),
        ],
    )
    def test_sees_every_way_to_read(self, read: Callable[[Tensor], object]) -> None:
        values = torch.ones(3)
        with pytest.raises(WaitError), nobody_waits(values.device):
            read(values)

    def test_sees_a_backward_that_reads(self) -> None:
        values = torch.ones(3, requires_grad=True)
        product = values * 2
        product.register_hook(lambda gradient: gradient * float(gradient.sum()))
        with pytest.raises(WaitError), nobody_waits(values.device):
            product.sum().backward()

    def test_lets_arithmetic_pass(self) -> None:
        values = torch.ones(3)
        with nobody_waits(values.device):
            result = torch.where(values > 0, values, 0)[torch.tensor([0, 2])].max()
        assert float(result) == 1.0

    @pytest.mark.slow
    def test_sees_a_callback_that_reads(self, tmp_path: Path) -> None:
        class Reading(Callback):
            def after_losses(self, name: str, losses: Any) -> None:
                self.seen = float(losses.total)

        trainer = open_trainer(tmp_path, FORMS['digits/fsq.py'], 'cpu')
        trainer.callbacks['reading'] = Reading()
        with pytest.raises(WaitError), nobody_waits(trainer.strategy.device):
            trainer.train_step()
        trainer._call('after_run')
