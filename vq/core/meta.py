"""Parts on the meta device: no memory, no weights, any size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vq.core.bindings import attribute_of
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.registry import TreeMeta

_FILLING: set[Any] = {
    *(Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_),
    *(Tensor.clamp_, Tensor.erfinv_, Tensor.mul_, Tensor.add_),  # of truncated normal values
    *(nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_),
}
_known: dict[tuple[int, str, str, tuple[str, ...]], dict[str, Any]] = {}


class _Unfilled(TorchFunctionMode):
    """Skip initializers of tensors on the meta device: these have no values, and initializers take half the building time."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if function in _FILLING:
            filled = arguments[0] if arguments else (keywords or {}).get('tensor')
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return function(*arguments, **(keywords or {}))


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Build modules on the meta device, without running initializers."""
    with torch.device('meta'), _Unfilled():
        yield


def facts_of(registry: TreeMeta, config: Mapping[str, Any], attributes: tuple[str, ...], path: str = '') -> dict[str, Any]:
    """Attributes (dotted names) of the part that ``config`` describes, read from a copy on the meta device.

    ``MISSING`` marks an attribute that the part does not have. The same config is read several times in one process, so the
    results are cached, with the text of the config as the key. The state of torch's random generator is restored.
    """
    try:
        text = PyConfig(part=config).dumps()
    except ConfigError:  # the config holds built parts or classes, which cannot be dumped
        return _ask(registry, config, attributes, path)
    key = (TreeMeta.changes, registry.__name__, text, attributes)
    if key not in _known:
        found = _ask(registry, config, attributes, path)
        key = (TreeMeta.changes, *key[1:])  # building imports modules, and importing registers more items
        _known[key] = found
    return _known[key]


def _ask(registry: TreeMeta, config: Mapping[str, Any], attributes: tuple[str, ...], path: str) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]), on_meta():
        part = registry.build(config, path)
    return {name: attribute_of(part, name) for name in attributes}
