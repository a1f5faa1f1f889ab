"""The reference toolkit's cached FID statistics, ``pretrained/fid/*.pth``, as a safetensors file.

The file is a pickled object of todd with mean, covariance and count. The exact class is unknown, and it is never imported:
a stand-in keeps the object's state, and the three values are recognised by their shapes.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.atomic import atomic_file
from vq.io.covariance import fault_of
from vq.io.digest import file_digest
from vq.io.published.reader import StandIn, read_published

FORMAT = 'vq.fid_statistics'
FORMAT_VERSION = 1
ACCEPTED = (r'todd\.(\w+\.)*\w*Statistics\w*',)
DEEPEST = 4  # levels of nesting that are searched
HINT = 'The file must hold a mean (D), a covariance (D, D) and a count.'


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of the features of a dataset, in float64."""

    mean: Tensor  # (D,)
    covariance: Tensor  # (D, D)
    count: Tensor  # () int64


def convert(path: Path) -> Statistics:
    """Read the statistics of a file."""
    values = list(_flatten(read_published(path, ACCEPTED)))
    tensors = [value for value in values if isinstance(value, Tensor) and value.ndim]
    mean = _one(path, 'mean', [value for value in tensors if value.ndim == 1 and value.is_floating_point()])
    covariance = _one(path, 'covariance', [value for value in tensors if value.ndim == 2 and value.is_floating_point()])
    count = _one(path, 'count', [torch.as_tensor(value) for value in values if _is_count(value)])
    if not bool(torch.isfinite(count)):
        raise UserError(f'{path} has a count that is not finite', HINT)
    result = Statistics(mean.double(), covariance.double(), count.long())
    _check(path, result)
    return result


def write_statistics(path: Path, statistics: Statistics, source: Path) -> None:
    tensors = {field.name: getattr(statistics, field.name) for field in dataclasses.fields(statistics)}
    metadata = {
        'vq.format': FORMAT,
        'vq.format_version': str(FORMAT_VERSION),
        'vq.kind': 'statistics',
        'vq.source': source.name,
        'vq.source_sha256': file_digest(source),
    }
    with atomic_file(path, tensorfile.size_of(tensors)) as writer:
        tensorfile.write_tensors(writer, tensors, metadata)


def _flatten(value: Any, depth: int = 0, seen: set[int] | None = None) -> Iterator[Any]:
    seen = set() if seen is None else seen  # a list can hold another twice, which holds another twice, ...
    if isinstance(value, StandIn | dict | list) and id(value) in seen:
        return
    seen.add(id(value))
    inner: Iterable[Any] = ()
    if isinstance(value, StandIn | dict):
        inner = [*value.values(), *(vars(value).values() if isinstance(value, OrderedDict) else ())]
    elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        inner = value
    else:
        yield value
    for item in inner if depth < DEEPEST else ():
        yield from _flatten(item, depth + 1, seen)


def _is_count(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62


def _one(path: Path, name: str, found: list[Tensor]) -> Tensor:
    if len(found) != 1:
        raise UserError(f'{path} has {len(found)} values that could be the {name}', HINT)
    return found[0]


def _check(path: Path, statistics: Statistics) -> None:
    mean, covariance, count = statistics.mean, statistics.covariance, statistics.count
    width = len(mean)
    if not width or tuple(covariance.shape) != (width, width):
        raise UserError(f'{path} has a mean of {width} values and a covariance of {tuple(covariance.shape)}', HINT)
    fault = fault_of(mean, covariance)
    if fault is not None:
        raise UserError(f'{path} has {fault}', HINT)
    if int(count) < 2:
        raise UserError(f'{path} has a count of {int(count)}', HINT)
