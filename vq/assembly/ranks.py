"""The strategy of a config against the number of ranks: what ``AutoStrategy`` becomes, and which strategies are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vq.core.config import PyConfig
from vq.core.environment import need_one_process, number, ranks
from vq.core.errors import ConfigError, UserError

AUTO = 'AutoStrategy'


def settle_strategy(config: PyConfig) -> None:
    """Write what AutoStrategy becomes into the config, and refuse a strategy that cannot use the ranks of this launch."""
    for path, part in _strategies(config):
        if str(part['type']).split('.')[-1] == AUTO:
            part['became'] = 'ddp' if ranks() > 1 else 'base'
        if ranks() > 1:
            _refuse(part, path)


def without_ranks(runner: PyConfig) -> PyConfig:
    """A copy of a runner's config without what depends on the number of ranks alone, for digests of what is measured."""
    found = PyConfig(runner)
    if isinstance(found.get('strategy'), Mapping):
        found['strategy'].pop('became', None)
    return found


def _strategies(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for which in ('trainer', 'validator'):
        part = config.get(which, {}).get('strategy')
        if isinstance(part, Mapping) and 'type' in part:
            yield f'{which}.strategy', part


def _refuse(part: Mapping[str, Any], path: str) -> None:
    from vq.registries import VQStrategyRegistry

    kind = str(part['type'])
    try:
        item = VQStrategyRegistry.parse(kind)[1]
    except UserError:  # an unknown type: the check of the config lists it with all other problems
        return
    if not getattr(item, 'distributed', False):
        others = f' Or share the work: --config-options strategy::auto, or --override .{path}.type::{AUTO}'
        need_one_process(f'{path} is {kind}, which', others)
    device, local = str(part.get('device', 'auto')), number('LOCAL_WORLD_SIZE', ranks())
    if re.search(r':\d+$', device) and local > 1:
        raise ConfigError(
            f"{path} has the device '{device}', which the {local} ranks of this machine would share",
            'Give a device without a number, so that each rank takes its own. CUDA_VISIBLE_DEVICES chooses some of the GPUs.',
        )
