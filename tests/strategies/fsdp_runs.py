"""What ranks of the pool run for tests of FSDP, and parts that only these tests use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.runners.gan import CONFIG
from tests.runners.support import train
from vq.cli.compose import checked, compose
from vq.core import collectives
from vq.core.random import derive_seed
from vq.discriminators.patchgan import PatchGAN
from vq.interfaces import Callback
from vq.io.sharded import gathered, local, part_of
from vq.registries import VQCallbackRegistry, VQDiscriminatorRegistry, VQRunnerRegistry
from vq.runners.context import RunContext

SGD = dict(type='SGD', lr=0.02)


@VQCallbackRegistry.register_()
class ShardNoiseCallback(Callback):
    """``NoiseCallback`` for parameters that may be in parts: a resume with other random numbers shows in the weights."""

    @torch.no_grad()
    def before_step(self) -> None:
        parameter = next(self.runner.model.parameters())
        noise = collectives.broadcast(torch.randn(parameter.shape))
        local(parameter).add_(part_of(noise, parameter) * 1e-3)


@VQDiscriminatorRegistry.register_()
class BlockwisePatchGAN(PatchGAN):
    """A discriminator that is gathered block by block."""

    def __init__(self, width: int = 8, depth: int = 2, norm: str = 'batch') -> None:
        super().__init__(width=width, depth=depth, norm=norm)  # type: ignore[arg-type]

    def shard_blocks(self) -> list[nn.Module]:
        return [*self.blocks]


def write_fsdp_config(folder: Path) -> Path:
    """The tiny adversarial config with the parts above. Written before ranks start: two of them writing would collide."""
    path = folder / 'fsdp.py'
    text = CONFIG.replace("'NoiseCallback'", "'ShardNoiseCallback'")
    path.write_text(text.replace("['tests.runners.parts']", "['tests.runners.parts', 'tests.strategies.fsdp_runs']"))
    return path


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model, on the first rank."""
    return {name: value.clone() for name, value in gathered(model.state_dict()).items()}


def build(folder: str, options: dict[str, Any], strategy: dict[str, Any], sgd: bool, averaged: bool = False) -> Any:
    config = compose(str(Path(folder) / 'fsdp.py'), options, {}, tiny=False)
    kept = ('OptimizeCallback', 'EMACallback') if averaged else ('OptimizeCallback',)
    config.trainer.callbacks = [callback for callback in config.trainer.callbacks if callback.type in kept]
    config.trainer.strategy.update(strategy)
    if sgd:
        config.trainer.optimizers = dict(tokenizer=SGD, discriminator=SGD)
    torch.manual_seed(derive_seed('parameters', 7))
    trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('gan', Path(folder) / 'run', seed=7))
    return trainer


def train_gan(folder: str, options: dict[str, Any], strategy: dict[str, Any] | None = None, sgd: bool = True) -> dict[str, Any]:
    """A run; what it ends with, and the adaptive weight and gradient norms of every step."""
    trainer = build(folder, options, strategy or {}, sgd, averaged=True)
    weights: list[float] = []
    norms: list[dict[str, float]] = []
    forward = trainer.model.weight.forward

    def remembered(gradients: Any) -> Any:
        value = forward(gradients)
        weights.append(float(value))
        return value

    trainer.model.weight.forward = remembered
    finish = trainer.strategy.finish_step

    def finished() -> None:
        norms.append({name: float(norm) for name, norm in trainer.gradient_norms.items()})
        finish()

    trainer.strategy.finish_step = finished
    stopped, trainer.strategy.stop = trainer.strategy.stop, lambda: None  # gathering needs the ranks
    try:
        trainer.run()
        average = next(callback.shadow for callback in trainer.callbacks if hasattr(callback, 'load_shadow'))
        return {
            'state': whole_state(trainer.model),
            'ema': {name: value.clone() for name, value in gathered(average).items()},
            'parts': {name: tuple(local(value).shape) for name, value in trainer.model.state_dict().items()},
            'weights': weights,
            'norms': norms,
        }
    finally:
        stopped()


def command(folder: str, *arguments: str) -> int:
    return train(folder, *arguments)
