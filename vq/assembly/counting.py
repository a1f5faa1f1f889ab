"""Counts of a model on the meta device: parameters, operations, tokens. Any size, without memory and without weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from vq.core.meta import facts_of, on_meta
from vq.core.operations import Operations
from vq.core.records import Batch
from vq.core.specs import TokenSpec
from vq.interfaces import Task
from vq.io.spec import size_of
from vq.registries import VQEncoderRegistry, VQTaskRegistry

logger = logging.getLogger('vq')

Counts = dict[str, tuple[int, float | None]]


def token_facts(part: Mapping[str, Any]) -> TokenSpec:
    """The tokens of a FrozenTokenizer's config, without reading its weights."""
    asked = {key: value for key, value in part.items() if key != 'weights'}
    found: TokenSpec = facts_of(VQEncoderRegistry, asked, ('tokens',), 'tokenizer')['tokens']
    return found


def meta_model(runner: Mapping[str, Any]) -> Task:
    """The model of a runner's config, without memory."""
    with on_meta():
        model: Task = VQTaskRegistry.build(runner['model'], 'model')
    return model


def count_model(runner: Mapping[str, Any], built: Task | None = None) -> Counts:
    """Part -> (parameters, forward operations for one image); the first row is the whole model, maybe ``built`` before."""
    model = built or meta_model(runner)
    model.eval()
    try:
        flops = count_flops(model, size_of(runner.get('dataset', {})))
    except (NotImplementedError, RuntimeError) as error:  # a part reads values, and the meta device has none
        logger.warning('operations cannot be counted: %s', str(error).partition('\n')[0])
        flops = {}
    parts = {name: module for name, module in model.named_modules() if name and name.count('.') <= 1 and count(module)}
    found: Counts = {'model': (count(model), flops.get('Global'))}
    for name, module in parts.items():
        found[name] = (count(module), flops.get(name))
    return found


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(model: Task, size: tuple[int, int]) -> dict[str, float]:
    """Operations of ``forward_once`` for one image, a multiply-add counted as two: of the task (``Global``) and each part."""
    image = torch.zeros(1, 3, *size, dtype=torch.uint8, device='meta')
    batch = Batch(image, ['one'], torch.zeros(1, dtype=torch.int64, device='meta'))
    parts = [(name, module) for name, module in model.named_modules() if name and name.count('.') <= 1]
    spent: dict[str, float] = {}
    with Operations() as counter, contextlib.ExitStack() as hooks:
        for name, module in parts:
            hooks.enter_context(_measure(name, module, counter, spent))
        model.forward_once(batch)
    for name, _ in parts:  # a part whose forward is never called, only its methods, gets the sum of its own parts
        within = [spent[other] for other, _ in parts if other.startswith(f'{name}.') and other in spent]
        if name not in spent and within:
            spent[name] = sum(within)
    return {'Global': float(counter.total), **spent}


@contextlib.contextmanager
def _measure(name: str, module: nn.Module, counter: Operations, spent: dict[str, float]) -> Iterator[None]:
    """Add the operations of each call of ``module`` to ``spent[name]``."""
    before: list[int] = []
    enter = module.register_forward_pre_hook(lambda *_: before.append(counter.total))

    def leave(*_: Any) -> None:
        spent[name] = spent.get(name, 0.0) + counter.total - before.pop()

    exit_ = module.register_forward_hook(leave)
    try:
        yield
    finally:
        enter.remove()
        exit_.remove()
