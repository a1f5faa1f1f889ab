"""Which modules register a name, read from their source: one part is found without importing a package of a hundred."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# @SomeRegistry.register_('Name') or register_(), perhaps with other decorators below, then class Name or def name
_REGISTERS = re.compile(
    r'^@\w+\.register_\((?:[\'"](?P<given>\w+)[\'"])?[^)]*\)[^\n]*\n(?:@[^\n]*\n)*(?:class|def)[ ](?P<own>\w+)',
    re.MULTILINE,
)


@functools.cache
def registering(package: str) -> Mapping[str, Sequence[str]]:
    """Name -> the modules of ``package`` that register an item of this name by a decorator."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, file in _sources(package):
        for match in _REGISTERS.finditer(file.read_text(encoding='utf-8')):
            found[match['given'] or match['own']].append(module)
    return dict(found)


def _sources(package: str) -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations is None and str(spec.origin).endswith('.py'):
        yield package, Path(str(spec.origin))
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).rglob('*.py')):
            yield '.'.join([package, *file.relative_to(folder).with_suffix('').parts]).removesuffix('.__init__'), file
