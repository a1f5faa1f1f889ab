"""Parts by their names in the packages that hold them: ``from vq.quantizers import VectorQuantizer``.

The names are those of the registries whose ``package`` is this package or is inside of it, so no list has to be kept. A
package imports its modules, and with them torch, when the first name is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from vq.core.errors import nearest


def parts_in(package: str) -> dict[str, Any]:
    """Name -> part, of this toolkit's own parts in a package; by the registered name and by that of the class or function."""
    root = importlib.import_module('vq.registries').VQRegistry
    found: dict[str, Any] = {}
    for registry in root.tree():
        if f'{registry.__dict__.get("package", "")}.'.startswith(f'{package}.'):
            registry.load_package()
            own = {name: part for name, part in registry.data.items() if f'{part.__module__}.'.startswith(f'{package}.')}
            found |= own | {part.__name__: part for part in own.values()}
    return found


def parts(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package."""

    def get(name: str) -> Any:
        module = importlib.import_module(package)
        if name == '__all__':
            return sorted(parts_in(package))
        # an import of a submodule asks for its name first, and must not load the others
        known = {} if name.startswith('_') or importlib.util.find_spec(f'{package}.{name}') else parts_in(package)
        if name not in known:
            raise AttributeError(f"module '{package}' has no attribute '{name}'{nearest(name, known)}")
        setattr(module, name, known[name])
        return known[name]

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *parts_in(package)})

    return get, names
