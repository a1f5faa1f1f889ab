"""Optimizer states by the names of parameters, whole or in parts: what one strategy saves, any other can take.

Under every strategy an optimizer has the same parameters in the same order (``Strategy.trainable``), so the entries of
``Optimizer.state_dict`` mean the same. Where ranks hold parts, tensors of a parameter's shape are written and read in parts
(``vq/io/shard_files.py``) under the name OPTIMIZER/PARAMETER/KEY.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.core.errors import UserError, listing
from vq.interfaces import Strategy
from vq.io.sharded import is_sharded, joined, local, part_of


def names_of(strategy: Strategy, root: nn.Module, parameters: list[Tensor]) -> list[str]:
    """What the parameters of an optimizer are called in its root, in their order: one optimizer may group them, and so
    have them in another order than the root.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in root.named_parameters()}
    return [names[strategy.origin(parameter)] for parameter in parameters]


def split_state(
    strategy: Strategy, name: str, root: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ranks have in common, in plain containers, and the distributed tensors by name (none if all are whole)."""
    parameters = _parameters(optimizer)
    names = names_of(strategy, root, parameters)
    found = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    parts: dict[str, Tensor] = {}
    for index, values in found['state'].items():
        origin = strategy.origin(parameters[index])
        state[index] = {}
        for key, value in values.items():
            if is_sharded(origin) and isinstance(value, Tensor) and value.shape == parameters[index].shape:
                parts[f'{name}/{names[index]}/{key}'] = joined(value, origin)
            else:
                state[index][key] = value
    kind = type(optimizer).__name__
    return {'state': state, 'param_groups': found['param_groups'], 'names': names, 'kind': kind}, parts


def restore_state(
    strategy: Strategy,
    name: str,
    root: nn.Module,
    optimizer: Optimizer,
    saved: Mapping[str, Any],
    shards: Path | None,
    source: Path,
) -> None:
    """Put back what ``split_state`` gave, of this strategy or another; ``shards`` is the folder of the parts."""
    parameters = _parameters(optimizer)
    names = names_of(strategy, root, parameters)
    _check(name, names, type(optimizer).__name__, saved, source)
    origins = [strategy.origin(parameter) for parameter in parameters]
    state = {index: dict(values) for index, values in saved['state'].items()}
    for index, values in state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and is_sharded(origins[index]) and value.shape == origins[index].shape:
                values[key] = part_of(value, origins[index])
    if shards is not None:
        _read_parts(name, names, origins, shards, state)
    optimizer.load_state_dict({'state': state, 'param_groups': saved['param_groups']})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group['params']]


def _check(name: str, names: list[str], kind: str, saved: Mapping[str, Any], source: Path) -> None:
    hint = 'Resume with the config the run was started with, or start a new run with --load-model-from.'
    if saved.get('kind', kind) != kind:
        raise UserError(f"{source} has the state of {saved['kind']}, and the optimizer '{name}' is {kind} now", hint)
    if saved.get('names', names) != names:
        changed = listing(set(saved['names']) ^ set(names), 3) or 'their order'
        raise UserError(f"{source} was written with other parameters of the optimizer '{name}': {changed}", hint)


def _read_parts(name: str, names: list[str], origins: list[Tensor], folder: Path, state: dict[int, dict[str, Any]]) -> None:
    from vq.io import shard_files

    numbers = {parameter: index for index, parameter in enumerate(names)}
    wanted: dict[str, Tensor] = {}
    for key, (dtype, shape) in shard_files.describe(folder).items():
        optimizer, _, rest = key.partition('/')
        if optimizer == name:
            origin = origins[numbers[rest.rpartition('/')[0]]]
            # a part where this run shards too, however many ranks it has; all of it otherwise
            template = origin if origin.shape == shape else torch.empty(0)
            size = local(template).shape if is_sharded(template) else shape
            wanted[key] = joined(torch.empty(size, dtype=dtype, device=local(template).device), template)
    shard_files.read_into(folder, wanted)
    for key, value in wanted.items():
        parameter, _, entry = key.removeprefix(f'{name}/').rpartition('/')
        state.setdefault(numbers[parameter], {})[entry] = local(value)
