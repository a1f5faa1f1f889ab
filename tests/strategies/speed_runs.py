"""Steps of shipped and tiny models under the speed options, next to plain ones; also what ranks of the pool run."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch.utils._pytree import tree_leaves

from tests.runners.gan import STEP, write_gan_config
from tests.shipped import composed, entries
from vq.assembly.compose import checked, compose
from vq.core.config import PyConfig
from vq.core.random import derive_seed
from vq.core.records import Batch
from vq.interfaces import Task
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext
from vq.strategies.base import BaseStrategy
from vq.strategies.compiling import usual_parts

SIZE = 32
PLAIN = (bool, int, float, str, tuple, list)


def outline(config: Any) -> Any:
    """A config without its numbers: what is left decides which code runs."""
    if isinstance(config, Mapping):
        return tuple((key, outline(config[key])) for key in sorted(config))
    if isinstance(config, list | tuple):
        return bool(config)
    return config if isinstance(config, str | bool | None) else 0


@functools.cache
def shapes(part: str = 'tokenizer') -> tuple[str, ...]:
    """Shipped configs that train a task with this part, one of each outline."""
    found: dict[Any, str] = {}
    for entry in entries():
        model = composed(entry).get('trainer', {}).get('model', {})
        if part in model:
            found.setdefault(outline(model), entry)
    return tuple(sorted(found.values()))


def tokenizers() -> list[str]:
    """Those of them whose tokenizer learns whole."""
    whole = ('ImageTokenization', 'AdversarialTokenization')
    return [entry for entry in shapes() if composed(entry).trainer.model.type in whole]


def small(entry: str) -> PyConfig:
    """Its tiny form with two levels, fewer blocks of the same kinds (unless its codes depend on the size of the grid)."""
    config = composed(entry)
    tokenizer = config.trainer.model.tokenizer
    for part in (tokenizer.encoder, tokenizer.decoder):
        if part.type in ('ConvEncoder', 'ConvDecoder') and 'MultiScale' not in tokenizer.get('quantizer', {}).get('type', ''):
            part.update(multipliers=(1, 2), residual_blocks=1)
            part.attention_levels = (1,) if part.get('attention_levels', (4,)) else ()
    return config


def build_task(entry: str) -> Task:
    torch.manual_seed(0)
    return VQRunnerRegistry.build(small(entry).trainer, 'trainer').model


class Watched:
    """The method of a network that is compiled. Notes what decides which program a call is: how the network is built, and of
    each call its inputs, what learns, and the gradients that came back.
    """

    def __init__(self, network: Any, settings: str) -> None:
        self.network, self.method = network, getattr(network, network.compiles)
        sizes = [(name, tuple(value.shape), value.dtype) for name, value in network.state_dict().items()]
        plain = [
            {name: value for name, value in vars(module).items() if isinstance(value, PLAIN)} for module in network.modules()
        ]
        self.notes: list[Any] = [type(network), settings, sizes, plain]

    def __call__(self, *arguments: Any) -> Any:
        if eval_frame._stance.stance == 'force_eager':  # ``vq.nn.eager``: this call is not compiled
            return self.method(*arguments)
        learning = [parameter.requires_grad for parameter in self.network.parameters()]
        self.notes.append((self.network.training, learning, torch.is_grad_enabled(), *map(self.seen, arguments)))
        result = self.method(*arguments)
        for place, value in enumerate(tree_leaves(vars(result) if dataclasses.is_dataclass(result) else result)):
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(lambda gradient, place=place: self.notes.append((place, torch.is_grad_enabled())))
        return result

    @staticmethod
    def seen(value: Any) -> Any:
        return (value.shape, value.stride(), value.dtype, value.requires_grad) if isinstance(value, Tensor) else value


def watch(task: Task, model: PyConfig) -> dict[str, Watched]:
    """The networks of a task by path, watched from now on; those of losses have tests of their own. ``model``: its config."""
    found = {}
    for path, network in usual_parts(task).items():
        if not path.startswith('losses.'):
            settings: Any = functools.reduce(operator.getitem, path.split('.'), model)
            found[path] = Watched(network, settings.dumps())
            setattr(network, str(network.compiles), found[path])
    return found


def make_batch(size: int = SIZE, count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return Batch(image, [str(index) for index in range(count)], torch.arange(count))


def placed(task: Task, **options: Any) -> tuple[Task, dict[str, nn.Module], BaseStrategy]:
    strategy = BaseStrategy(device='cpu', **options)
    strategy.start()
    strategy.place(task)
    return task.train(), strategy.wrap(task.roots()), strategy


def one_step(
    task: Task, roots: Mapping[str, nn.Module], strategy: BaseStrategy, step: int = 50_000, batch: Batch | None = None
) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """Optimizer name -> total loss, gradients by parameter. The default step is one in which everything is at work."""
    torch.manual_seed(step)
    found = {}
    parts = task.training_step(strategy.to_device(batch or make_batch()), roots, step)
    while True:
        with strategy.autocast():
            part = next(parts, None)
        if part is None:
            break
        for parameter in task.parameters():
            parameter.grad = None
        part[1].total.backward()
        gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
        found[part[0]] = part[1].total.detach(), gradients
    task.update()
    return found


def assert_steps_agree(ours: Any, theirs: Any, tolerance: float) -> None:
    """Losses relative to themselves, gradients to the largest one of their optimizer."""
    assert ours.keys() == theirs.keys()
    for name, (loss, gradients) in theirs.items():
        torch.testing.assert_close(ours[name][0], loss, rtol=tolerance, atol=0)
        assert ours[name][1].keys() == gradients.keys()
        largest = max(float(value.abs().max()) for value in gradients.values())
        for key, value in gradients.items():
            difference = float((ours[name][1][key] - value).abs().max())
            assert difference <= tolerance * largest, f'{name}: {key} differs by {difference / largest:.1e} of the largest'


def train_gan(folder: str, options: dict[str, Any], **strategy: Any) -> dict[str, Tensor]:
    """The state after a run of the tiny adversarial config, with plain SGD; settings of the strategy from ``strategy``."""
    Path(folder).mkdir(exist_ok=True)
    config = compose(str(write_gan_config(Path(folder))), options, {}, tiny=False)
    config.trainer.callbacks = []
    config.trainer.optimizers = {name: dict(type='SGD', lr=0.02, **step) for name, step in STEP.items()}
    config.trainer.strategy.update(strategy)
    torch.manual_seed(derive_seed('parameters', 7))
    trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('gan', Path(folder) / 'run', seed=7))
    trainer.run()
    trainer.guard.check()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def train_gan_with(folder: str, options: dict[str, Any], strategy: dict[str, Any]) -> dict[str, Tensor]:
    return train_gan(folder, options, **strategy)
