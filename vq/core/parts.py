"""Named parts: a dict in a config that also has the methods of a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.core.phases import name_of


class NamedParts(PyConfig):
    """``callbacks`` of a runner: names -> parts. The value None switches an inherited part off.

    ``insert``, ``append``, ``pop(-1)``, ``[0]`` and iteration work as on a list of the parts that are switched on; new
    parts are named after their types. ``keys``, ``values``, ``items``, ``in`` and ``len`` are those of a dict.
    """

    @classmethod
    def of(cls, parts: Any) -> NamedParts:
        """Named parts of a list, or of a mapping."""
        if isinstance(parts, Mapping):
            return cls(parts)
        found = cls()
        for part in parts:
            if part is not None:
                found.append(part)
        return found

    @classmethod
    def _adopt(cls, value: Any, name: str | None = None) -> Any:
        return PyConfig._adopt(value, name)

    def names(self) -> list[str]:
        """The names of the parts that are switched on."""
        return [name for name, part in self.data.items() if isinstance(part, Mapping) and name != '_override_']

    def name_at(self, index: int) -> str:
        """The name of the part at a position; a negative one counts from the end."""
        return self.names()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter([self.data[name] for name in self.names()])

    def keys(self) -> Any:
        return self.data.keys()

    def values(self) -> Any:
        return self.data.values()

    def items(self) -> Any:
        return self.data.items()

    def clear(self) -> None:
        self.data.clear()

    def __getitem__(self, key: str | int) -> Any:
        return super().__getitem__(self.name_at(key) if isinstance(key, int) else key)

    def __setitem__(self, key: str | int, value: Any) -> None:
        super().__setitem__(self.name_at(key) if isinstance(key, int) else key, value)

    def __delitem__(self, key: str | int) -> None:
        del self.data[self.name_at(key) if isinstance(key, int) else key]

    def pop(self, key: str | int = -1, *default: Any) -> Any:
        """Remove and return the part with a name or at a position."""
        return self.data.pop(self.name_at(key) if isinstance(key, int) else key, *default)

    def append(self, part: Mapping[str, Any]) -> None:
        self.insert(len(self.data), part)

    def insert(self, index: int, part: Mapping[str, Any]) -> None:
        """Insert before the part at ``index``, counted as in ``list.insert``."""
        if not isinstance(part, Mapping) or 'type' not in part:
            raise ConfigError(f'{part!r:.60} cannot be inserted into named parts', 'Give dict(type=...).')
        name = name_of(part['type'], self.names())
        names = [known for known in self.names() if known != name]
        behind = names[index:] if index < len(names) else []
        self.data.pop(name, None)  # a part of this name that is switched off
        self.data[name] = self._adopt(part)
        for other in behind:
            self.data[other] = self.data.pop(other)
