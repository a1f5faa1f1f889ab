"""The pretrained files that a config needs, and the one command that fetches those that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vq.core.meta import on_meta
from vq.interfaces import Pretrained, Task
from vq.io.pretrained import pretrained_root
from vq.io.published import catalog
from vq.registries import VQRunnerRegistry


def needed_files(runners: Mapping[str, Any], model: Task) -> list[Path]:
    """What the model and the networks of metrics will read, each file once. Of the checked ``runners``, one has ``model``."""
    holders: list[nn.Module] = [model]
    if 'validator' in runners:
        with on_meta():
            validator = VQRunnerRegistry.build({**runners['validator'], 'model': model}, 'validator')
        holders += [networks for networks in [getattr(validator, 'networks', None)] if networks is not None]
    parts = [part for holder in holders for part in holder.modules() if isinstance(part, Pretrained)]
    return list(dict.fromkeys(file for part in parts for file in part.pretrained_files()))


def missing_lines(files: Iterable[Path]) -> Iterator[str]:
    """Which of the files are missing, and how to get them; nothing if none is needed."""
    wanted = list(files)
    missing = [file for file in wanted if not file.is_file()]
    if wanted and not missing:
        yield f'pretrained files: {len(wanted)}, and none is missing'
    if not missing:
        return
    yield f'pretrained files: {len(wanted)}, and {len(missing)} missing: {", ".join(map(str, missing))}'
    owners = {file: catalog.owner_of(_below_root(file)) for file in missing}
    names = dict.fromkeys(owner.name for owner in owners.values() if owner is not None)
    if names:
        yield f'fetch them: python -m vq.tools.prepare_checkpoints {" ".join(names)}'
    others = [str(file) for file, owner in owners.items() if owner is None]
    if others:
        yield f'published nowhere, so train the run or put the file there: {", ".join(others)}'


def _below_root(file: Path) -> str:
    root = pretrained_root().absolute()
    return file.absolute().relative_to(root).as_posix() if file.absolute().is_relative_to(root) else str(file)
