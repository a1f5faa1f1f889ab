"""Parts with weights of their own files, and parts that are frozen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from torch import nn


class Pretrained:
    """Two phases: constructors never read a file; ``load_pretrained`` does, once, after building.

    A part that is ``frozen`` says so here and nowhere else. The task that has it, at any depth, keeps it in eval mode and
    without gradients, leaves its tensors out of checkpoints and averages, and checkpoints record the hashes of its files.
    """

    frozen: bool = True
    kept: ClassVar[tuple[str, ...]] = ()  # names of its tensors that checkpoints keep nevertheless

    def load_pretrained(self) -> None:
        raise NotImplementedError

    def pretrained_files(self) -> list[Path]:
        """The files that ``load_pretrained`` reads. Checkpoints record their hashes if the part is frozen."""
        raise NotImplementedError


def frozen_parts(module: nn.Module) -> dict[str, Pretrained]:
    """Name -> frozen part, at any depth, also parts of frozen parts."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Pretrained) and part.frozen}


def freeze(module: nn.Module) -> None:
    """Every frozen part: eval mode, and no gradients for its parameters. Activations may carry gradients through it."""
    for part in frozen_parts(module).values():
        assert isinstance(part, nn.Module)
        part.eval().requires_grad_(False)


def added_to(name: str, part: nn.Module) -> Iterator[str]:
    """The prefixes of the keys that a part says are ``added`` to published networks, such as adapters."""
    yield from (f'{name}.{child}' for child in getattr(part, 'added', ()))


def left_out(name: str, part: Pretrained) -> Iterator[str]:
    """The prefixes of the keys of a frozen part that checkpoints leave out: all but ``kept``."""
    if not part.kept:
        yield f'{name}.'
        return
    assert isinstance(part, nn.Module)
    yield from (f'{name}.{child}.' for child, _ in part.named_children() if child not in part.kept)
    tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
    yield from (f'{name}.{tensor}' for tensor, _ in tensors if tensor not in part.kept)
