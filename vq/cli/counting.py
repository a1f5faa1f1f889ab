"""Parameters and operations of a model, counted on the meta device: no memory, no weights, any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vq.core.records import Batch
from vq.interfaces import Task
from vq.registries import VQTaskRegistry

Counts = dict[str, tuple[int, float | None]]


def count_model(runner: Mapping[str, Any]) -> Counts:
    """Part -> (parameters, forward operations for one image); the first row is the whole model."""
    with torch.device('meta'):
        model: Task = VQTaskRegistry.build(runner['model'], 'model')
    model.eval()
    flops = count_flops(model, image_size_of(runner.get('dataset', {})))
    parts = {name: module for name, module in model.named_modules() if name and name.count('.') <= 1 and count(module)}
    found: Counts = {'model': (count(model), flops.get('Global'))}
    for name, module in parts.items():
        found[name] = (count(module), flops.get(name))
    return found


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def image_size_of(dataset: Mapping[str, Any]) -> int:
    """The size a dataset's config asks for."""
    transform = dataset.get('transform') or {}
    return int(transform.get('image_size', dataset.get('image_size', 256)))


def count_flops(model: Task, image_size: int) -> dict[str, float]:
    """Multiply-adds counted as two, of one validation step on one image."""
    image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device='meta')
    batch = Batch(image, ['one'], torch.zeros(1, dtype=torch.int64, device='meta'))
    with FlopCounterMode(display=False) as counter:
        model.validation_step(batch)
    totals = {'Global': float(counter.get_total_flops())}
    prefix = type(model).__name__ + '.'
    for name, operations in counter.get_flop_counts().items():
        totals[name.removeprefix(prefix)] = float(sum(operations.values()))
    return totals
