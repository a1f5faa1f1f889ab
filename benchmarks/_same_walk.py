"""The worker of ``walk.py``, run in a process that imports one checkout: records the calls from ``vq.load`` to tokens.

python -P _same_walk.py QUESTION.json ANSWER.json        with PYTHONPATH=CHECKOUT, in the folder of the run
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

import vq

PACKAGE = Path(vq.__file__).resolve().parent
DOOR = '__init__.py'  # the file that the user calls by ``vq.load``

Call = tuple[str, str, str, str]  # calling file and function, called file and function


class Recorder:
    """Distinct calls between functions of the package, in order. Calls during the import of a module are ignored."""

    def __init__(self) -> None:
        self.calls: dict[Call, int] = {}
        self.files: dict[CodeType, str | None] = {}

    def file(self, code: CodeType) -> str | None:
        if code not in self.files:
            path = Path(code.co_filename)
            self.files[code] = str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else None
        return self.files[code]

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != 'call':
            return
        called = self.file(frame.f_code)
        if called is None:
            return
        ours = [code for code in codes_above(frame) if self.file(code) is not None]
        if any(code.co_name == '<module>' for code in ours):
            return
        caller, name = (self.file(ours[1]), ours[1].co_qualname) if len(ours) > 1 else (DOOR, 'load')
        assert caller is not None
        call = (caller, name, called, frame.f_code.co_qualname)
        self.calls[call] = self.calls.get(call, 0) + 1


def codes_above(frame: FrameType | None) -> Iterator[CodeType]:
    """The code of a frame and of all its callers, innermost first, with frames of torch and Python."""
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def recorded(work: Callable[[], Any]) -> tuple[Any, dict[Call, int]]:
    recorder = Recorder()
    sys.setprofile(recorder)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return result, recorder.calls


# imports of a file


def module_name(file: str) -> str:
    parts = ('vq', *Path(file).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_names(file: str) -> set[tuple[str, str]]:
    """(module, name) of each class and function of the package that a file imports anywhere; classes with their base classes,
    modules as (module, '').
    """
    found: set[tuple[str, str]] = set()
    package = module_name(file).split('.')[: None if file.endswith('__init__.py') else -1]
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, '') for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*start, *([node.module] if node.module else [])])
            if base.split('.')[0] == 'vq':
                found |= {place for alias in node.names for place in places_of(base, alias.name)}
    return found


def places_of(module: str, name: str) -> Iterator[tuple[str, str]]:
    """The modules that define the object of ``from module import name``, through re-exports."""
    value = getattr(importlib.import_module(module), name, None)
    if value is None or type(value).__name__ == 'module':
        yield f'{module}.{name}', ''
        return
    for kind in value.__mro__ if isinstance(value, type) else [value]:
        yield getattr(kind, '__module__', module), getattr(kind, '__qualname__', name).split('.')[0]
    yield module, name


def main() -> None:
    question, answer = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def walk() -> list[Any]:
        tokens: list[Any] = vq.load(question['run']).tokenize(images).tolist()
        return tokens

    before = {name for name in sys.modules if name.startswith('vq')}
    tokens, calls = recorded(walk)
    modules = sorted(name for name in sys.modules if name.startswith('vq') and name not in before)
    imports = {file: sorted(imported_names(file)) for file in sorted({call[0] for call in calls})}
    answer.write_text(
        json.dumps(
            {
                'imported': vq.__file__,
                'same_tokens': walk() == tokens,
                'calls': [[*call, count] for call, count in calls.items()],
                'imports': imports,
                'modules': modules,
            }
        )
    )


if __name__ == '__main__':
    main()
