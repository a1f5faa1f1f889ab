"""The codebooks of a model in training: finding them, recording their inputs, and updating copies of their codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Batch
from vq.interfaces import Quantizer, Task
from vq.io.checkpoints import model_state
from vq.quantizers.composite import Composite
from vq.quantizers.multi_scale import MultiScaleQuantizer
from vq.quantizers.vector import VectorQuantizer
from vq.runners.averages import averages_of
from vq.runners.protocol import RunnerLike, TrainerLike

HINT = "Use it with 'VectorQuantizer', alone or as a part of residual, grouped or multi-scale quantizers, or leave it out."


def find_quantizer(task: Task, asker: str) -> tuple[str, Quantizer]:
    """Path and module of the outermost quantizer of a task, whose tokens are those of the model."""
    found: dict[str, Quantizer] = {}
    for name, module in task.named_modules():
        if isinstance(module, Quantizer) and not any(name.startswith(f'{outer}.') for outer in found):
            found[name] = module
    if len(found) != 1:
        raise ConfigError(f'{asker} needs a model with one quantizer, and this one has {len(found)}', HINT)
    return next(iter(found.items()))


def vector_quantizers(task: Task, asker: str) -> dict[str, VectorQuantizer]:
    """The quantizers of a task that search the nearest code of a codebook, by their paths, first stages first."""
    top, quantizer = find_quantizer(task, asker)
    inner = [(name, part) for name, part in quantizer.named_modules(prefix=top) if isinstance(part, Quantizer)]
    found = {name: part for name, part in inner if isinstance(part, VectorQuantizer)}
    if not found:
        kinds = ' of '.join(dict.fromkeys(type(part).__name__ for _, part in inner))
        raise ConfigError(f'{asker}: {kinds} has no codebook that is searched for the nearest code', HINT)
    return found


def codebook_owners(quantizer: Quantizer) -> list[tuple[int, Quantizer]]:
    """Size and quantizer of each codebook of the tokens, in the order of ``codebooks``."""
    owners = _owners(quantizer)
    sizes = quantizer.codebooks
    return list(zip(sizes, owners if len(sizes) > 1 else owners[:1], strict=True))


def _owners(quantizer: Quantizer) -> list[Quantizer]:
    """The quantizer of each token of a cell, in the order of the tokens' last axis."""
    if isinstance(quantizer, Composite):
        return [owner for part in quantizer.used() for owner in _owners(part)]
    if isinstance(quantizer, MultiScaleQuantizer):
        return _owners(quantizer.quantizer)
    return [quantizer]


def features_of(runner: RunnerLike, quantizer: Quantizer, batches: Sequence[Batch] | Iterator[Batch]) -> list[Tensor]:
    """The inputs of the outermost quantizer for batches on the device: (B, ..., C) each, fp32.

    It runs whole validation steps, because only the forward of a root works under every strategy. Call it inside
    ``evaluating``.
    """
    caught: list[Tensor] = []
    with _caught(quantizer, caught.append):
        for batch in batches:
            with runner.strategy.autocast():
                runner.model.validation_step(batch)
    return caught


def inputs_of(part: Quantizer, top: Quantizer, features: Sequence[Tensor], calls: int | None = None) -> list[list[Tensor]]:
    """The inputs of a nested quantizer for each of the ``features``, the inputs of the outermost: (N, C) rows of each call.

    Only the first ``calls`` calls are kept: later inputs of a quantizer that is used several times depend on its own codes.
    """
    found: list[list[Tensor]] = []
    for value in features:
        rows: list[Tensor] = []

        def keep(given: Tensor, rows: list[Tensor] = rows) -> None:
            if calls is None or len(rows) < calls:
                rows.append(given.reshape(-1, given.shape[-1]))

        if part is top:
            keep(value)
        else:
            with _caught(part, keep):
                top(value)
        found.append(rows)
    return found


@contextmanager
def _caught(module: nn.Module, take: Callable[[Tensor], None]) -> Iterator[None]:
    """``take`` is called with a copy of the input of each forward of the module."""

    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        take(arguments[0].detach().float().clone())

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def copy_to_averages(runner: TrainerLike, names: Sequence[str], rows: Tensor | None = None) -> None:
    """Copy the state of the quantizers ``names`` into the moving averages; with ``rows`` (K,) bool, only these rows."""
    state = model_state(runner.model)
    for callback in averages_of(runner.callbacks.values()):
        for key, average in callback.shadow.items():
            if not any(key.startswith(f'{name}.') for name in names):
                continue
            if rows is None:
                average.copy_(state[key])
            elif average.shape[:1] == rows.shape:
                average.copy_(_where_rows(rows, state[key], average))


def forget_moments(runner: TrainerLike, codebook: Tensor, rows: Tensor) -> None:
    """Zero the optimizer moments of some rows (K,) bool of a codebook. (No strategy shards quantizers.)"""
    for optimizer in runner.optimizers.values():
        for value in optimizer.state.get(codebook, {}).values():
            if isinstance(value, Tensor) and value.shape == codebook.shape:
                value.copy_(_where_rows(rows, torch.zeros_like(value), value))


def _where_rows(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (old.ndim - 1)), new, old)
