"""What ranks of the pool run for tests of FSDP, and parts that only these tests use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.runners.gan import CONFIG, STEP
from tests.runners.support import train
from vq.assembly.compose import checked, compose
from vq.core import collectives
from vq.core.errors import ConfigError, RunFailure
from vq.core.random import derive_seed
from vq.discriminators.patchgan import PatchGAN
from vq.interfaces import Callback
from vq.io.checkpoints import load
from vq.io.sharded import gathered, joined, local, part_of
from vq.registries import VQCallbackRegistry, VQDiscriminatorRegistry, VQRunnerRegistry
from vq.runners.context import RunContext
from vq.runners.resuming import Resume
from vq.strategies.fsdp import FSDPStrategy
from vq.strategies.optimizer_state import split_state

SGD = dict(type='SGD', lr=0.02)  # Adam would blow rounding of gradients near zero up to whole steps
KINDS = ('EMACallback',)


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


def build(folder: str, options: dict[str, Any], strategy: dict[str, Any], sgd: bool, kinds: tuple[str, ...] = KINDS) -> Any:
    config = compose(str(Path(folder) / 'fsdp.py'), options, {}, tiny=False)
    config.trainer.callbacks = [callback for callback in config.trainer.callbacks if callback.type in kinds]
    config.trainer.strategy.update(strategy)
    if sgd:
        config.trainer.optimizers = {name: SGD | step for name, step in STEP.items()}
    torch.manual_seed(derive_seed('parameters', 7))
    trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('gan', Path(folder) / 'run', seed=7, config_text='x = 1\n'))
    return trainer


def train_gan(
    folder: str, options: dict[str, Any], strategy: dict[str, Any] | None = None, sgd: bool = True
) -> dict[str, Any]:
    """A run; what it ends with, and the adaptive weight and gradient norms of every step."""
    trainer = build(folder, options, strategy or {}, sgd)
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
        average = trainer.callbacks['ema'].shadow
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


def whole_optimizers(trainer: Any) -> dict[str, Tensor]:
    """Name -> every tensor of every optimizer's state, on the first rank."""
    found: dict[str, Tensor] = {}
    for name, optimizer in trainer.optimizers.items():
        state, parts = split_state(trainer.strategy, name, trainer.roots[name], optimizer)
        found |= gathered(parts)
        for index, values in state['state'].items():
            found |= {f'{name}/{state["names"][index]}/{key}': value for key, value in values.items()}
    return found


def saved_by(folder: str, options: dict[str, Any]) -> dict[str, Any]:
    """A run with checkpoints; what it has at the end."""
    return _with_trainer(folder, options, None, lambda trainer: trainer.run())


def resumed_by(folder: str, options: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    """What a run has when it has been set up to go on from a checkpoint, and the samples that come next."""
    return _with_trainer(folder, options, checkpoint, lambda trainer: trainer.setup())


def _with_trainer(folder: str, options: dict[str, Any], checkpoint: str | None, act: Any) -> dict[str, Any]:
    trainer = build(folder, options, {}, sgd=False, kinds=('EMACallback', 'CheckpointCallback'))
    if checkpoint is not None:
        trainer.resumed = Resume(Path(checkpoint), load(Path(checkpoint)))
    stop, trainer.strategy.stop = trainer.strategy.stop, lambda: None
    try:
        act(trainer)
        average = trainer.callbacks['ema'].shadow
        found = {
            'model': whole_state(trainer.model),
            'ema': {name: value.clone() for name, value in gathered(average).items()},
            'optimizers': whole_optimizers(trainer),
            'rates': {name: optimizer.param_groups[0]['lr'] for name, optimizer in trainer.optimizers.items()},
            'step': trainer.step,
        }
        with trainer.open_loader() as loader:
            batches = iter(loader)
            found['next'] = [next(batches).id for _ in range(2)]
        return found
    finally:
        stop()


def fail_on_one_rank(folder: str) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """Seven steps, of which the third brings nan on the second rank; this rank's parts after two steps and at the end."""
    losses = dict(l1=dict(type='L1Loss'), broken=dict(type='FailingLoss', call=3, rank=1))
    trainer = build(folder, dict(iters=7, start=0, warmup=0, strategy='fsdp', losses=losses), {}, sgd=False)
    after: dict[str, Tensor] = {}
    update = trainer.model.update

    def remembered(ok: Tensor) -> None:
        update(ok)
        if trainer.step == 1:  # steps done before the one that ends here
            after.update(_parts(trainer))

    trainer.model.update = remembered
    trainer.run()
    try:
        trainer.guard.check()
    except RunFailure as error:
        return str(error), after, _parts(trainer)
    return 'no error', after, _parts(trainer)


def _parts(trainer: Any) -> dict[str, Tensor]:
    parts = {name: local(value).clone() for name, value in trainer.model.state_dict().items()}
    for name, optimizer in trainer.optimizers.items():
        for index, values in optimizer.state_dict()['state'].items():
            parts |= {f'{name}/{index}/{key}': value.clone() for key, value in values.items()}
    return parts


def scale_gradients() -> tuple[list[bool], list[float]]:
    """A parameter in two parts, whose gradient overflows in the second: is it seen, how does the scale move."""
    strategy = FSDPStrategy(device='cpu', precision='fp16')
    strategy.start()
    root = nn.Linear(3, 4, bias=False)
    strategy.shard({'root': root})
    optimizer = torch.optim.SGD([{'params': strategy.trainable(root)}], lr=1.0)
    fine, scales = [], []
    for value in (1.0, float('inf'), 1.0):
        weight = next(root.parameters())
        part = torch.full_like(local(weight), value if collectives.rank() else 1.0) * strategy.scaler.scale
        weight.grad = joined(part, weight)
        strategy.unscale(optimizer)
        before = local(weight).clone()
        strategy.step(optimizer, torch.tensor(True))
        strategy.finish_step()
        fine.append(bool((local(weight) == before - 1).all()))
        scales.append(float(strategy.scaler.scale))
    strategy.stop()
    return fine, scales


def norm_and_refusal() -> tuple[float, str]:
    """The norm of a gradient in parts beside a whole one; what an optimizer of matrices is told."""
    strategy = FSDPStrategy(device='cpu')
    strategy.start()
    root = nn.Linear(3, 5)  # uneven: three rows and two
    strategy.shard({'root': root})

    class Matrices(torch.optim.SGD):
        pass

    optimizer = Matrices([{'params': strategy.trainable(root)}], lr=1.0)
    root(torch.full((1, 3), 1.0 + collectives.rank())).sum().backward()  # weight: 1.5 everywhere, bias: 1
    strategy.unscale(optimizer)
    norm = strategy.gradient_norm([parameter for group in optimizer.param_groups for parameter in group['params']])
    try:
        strategy.step(optimizer, torch.tensor(True))
        told = ''
    except ConfigError as error:
        told = str(error)
    strategy.stop()
    return float(norm), told
