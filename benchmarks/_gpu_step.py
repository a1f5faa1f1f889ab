"""A training step of the shipped ImageNet VQGAN as in the trainer, without data loading and callbacks.

Composing and building have one function each, so that a change of their modules is a change of one line here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vq.core.records import Batch
from vq.interfaces import Pretrained, Strategy, Task
from vq.nn.precision import exact_products

CONFIG = 'vqgan/8192_dd2_aglwg075_imagenet_ddp.py'


def compose_trainer(tiny: bool) -> Mapping[str, Any]:
    """The trainer's part of the composed config; ``tiny``: in its tiny form."""
    from vq.assembly.compose import compose

    trainer: Mapping[str, Any] = compose(f'configs/{CONFIG}', {}, {}, tiny=tiny)['trainer']
    return trainer


def build_task(model: Mapping[str, Any]) -> Task:
    from vq.registries import VQTaskRegistry

    task: Task = VQTaskRegistry.build(model, 'model')
    return task


def build_strategy(options: Mapping[str, Any]) -> Strategy:
    from vq.registries import VQStrategyRegistry

    strategy: Strategy = VQStrategyRegistry.build({'type': 'BaseStrategy', **options}, 'strategy')
    return strategy


def without_gan(model: Mapping[str, Any]) -> dict[str, Any]:
    """The same tokenizer and losses, and no discriminator."""
    return {'type': 'ImageTokenization', 'tokenizer': model['tokenizer'], 'losses': model['losses']}


def small_model(width: int) -> dict[str, Any]:
    """VQGAN's recipe with two levels, for short compilation. Codes are far apart, so that rounding does not change tokens."""
    shape = {'width': width, 'multipliers': (1, 2), 'attention_levels': (1,), 'norm_groups': 8, 'refine': False}
    return {
        'type': 'AdversarialTokenization',
        'tokenizer': {
            'type': 'VQGAN',
            'encoder': {'type': 'ConvEncoder', 'residual_blocks': 1, 'out_channels': 64, **shape},
            'post_encode': {'type': 'ConvConnector'},
            'quantizer': {'type': 'VectorQuantizer', 'codebook_size': 1024, 'embedding_dim': 64, 'init': 'normal'},
            'pre_decode': {'type': 'ConvConnector'},
            'decoder': {'type': 'ConvDecoder', 'residual_blocks': 1, **shape},
        },
        'losses': {'l1': {'type': 'L1Loss'}},
        'discriminator': {'type': 'PatchGAN', 'width': width, 'depth': 2},
        'generator_loss': {'type': 'HingeGeneratorLoss'},
        'discriminator_loss': {'type': 'HingeDiscriminatorLoss'},
        'weight': {'type': 'AdaptiveWeight', 'gain': 0.8},
    }


@contextlib.contextmanager
def comparable() -> Iterator[None]:
    """For comparisons: matrix products and convolutions in true fp32, without cuDNN's search for algorithms."""
    searching, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        with exact_products():
            yield
    finally:
        torch.backends.cudnn.benchmark = searching


def load_networks(task: Task) -> list[str]:
    """Load pretrained networks if their files exist. Returns the paths of networks that keep random weights."""
    missing = []
    for name, module in task.named_modules():
        if isinstance(module, Pretrained):
            if all(path.exists() for path in module.pretrained_files()):
                module.load_pretrained()
            else:
                missing.append(name)
    return missing


def images(count: int, size: int, seed: int = 1) -> Batch:
    """Smooth colour gradients with some noise: learnable images without a download."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode='bilinear')
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=generator)
    image = (noisy * 255).clamp(0, 255).to(torch.uint8)
    return Batch(image, [str(index) for index in range(count)], torch.arange(count))


class Training:
    """A task under a strategy with its optimizers. Benchmarks time ``step``."""

    def __init__(self, model: Mapping[str, Any], rates: Mapping[str, float], strategy: Mapping[str, Any]) -> None:
        torch.manual_seed(0)
        self.task = build_task(model).train()
        self.missing = load_networks(self.task)
        self.strategy = build_strategy(strategy)
        self.strategy.start()
        roots = self.task.roots()
        self.strategy.shard(roots)
        self.strategy.place(self.task)
        self.parameters = {name: self.strategy.trainable(root) for name, root in roots.items()}
        self.optimizers = {
            name: torch.optim.Adam(parameters, rates[name], (0.5, 0.9), fused=self.strategy.fused)
            for name, parameters in self.parameters.items()
        }
        self.wrapped = self.strategy.wrap(roots)
        self.values: dict[str, Tensor] = {}  # losses of the last step, by name
        self.totals: dict[str, Tensor] = {}  # weighted total loss of each optimizer
        self.done = 0

    def step(self, batch: Batch, update: bool = True) -> None:
        """One step of every optimizer, as in ``Trainer.train_step``. With ``update=False`` gradients are kept."""
        batch = self.strategy.to_device(batch)
        with self.strategy.micro_step(self.wrapped, True):
            for name, losses in self._losses(batch):
                self.values |= {key: value.detach() for key, value in losses.values.items()}
                total = losses.total
                self.totals[name] = total.detach()
                self.strategy.backward(total)
                if update:
                    self._update(name)
        if update:
            self.strategy.finish_step()
            self.task.update()
            self.done += 1

    def _losses(self, batch: Batch) -> Iterator[tuple[str, Any]]:
        parts = self.task.training_step(batch, self.wrapped, self.done + 1)
        while True:
            with self.strategy.autocast():
                part = next(parts, None)
            if part is None:
                return
            yield part

    def _update(self, name: str) -> None:
        optimizer = self.optimizers[name]
        self.strategy.unscale(optimizer)
        norm = self.strategy.gradient_norm(self.parameters[name])
        finite = torch.ones_like(norm, dtype=torch.bool) if self.strategy.gradients_may_overflow else torch.isfinite(norm)
        self.strategy.step(optimizer, finite)

    def first(self, batch: Batch) -> tuple[dict[str, float], list[Tensor], float]:
        """Losses and gradients of the next step, and its seconds. Parameters are not updated."""
        begun = time.perf_counter()
        self.step(batch, update=False)
        values = {name: float(value) for name, value in self.values.items()}  # host sync
        seconds = time.perf_counter() - begun
        gradients = [p.grad.detach().clone() for group in self.parameters.values() for p in group if p.grad is not None]
        self.task.zero_grad(set_to_none=True)
        return values, gradients, seconds


def rates_of(trainer: Mapping[str, Any]) -> dict[str, float]:
    """The learning rate of each optimizer."""
    return {name: float(optimizer['lr']) for name, optimizer in trainer['optimizers'].items()}


SCALES = {'generator': 1.0, 'discriminator': 1.0}  # the margin of the hinge loss: a mean logit near 0 has no scale of its own


def difference(values: Mapping[str, float], expected: Mapping[str, float], floor: float = 0.2) -> float:
    """The largest relative difference of losses. It is relative to the scale of the loss at least, or to ``floor``."""
    if set(values) != set(expected):
        return float('inf')
    return max(abs(values[name] - expected[name]) / max(abs(expected[name]), SCALES.get(name, floor)) for name in expected)


def gradient_difference(gradients: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of any gradient, relative to the largest gradient."""
    largest = max(float(value.abs().max()) for value in expected)
    return max(float((one - other).abs().max()) for one, other in zip(gradients, expected, strict=True)) / largest
