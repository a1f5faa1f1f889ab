"""The files of frozen parts in checkpoints: which they were, and whether a model has the same ones.

``meta.json`` has ``frozen``, file -> SHA-256, and ``frozen_parts``, name of a part -> its files. By the first a file is
compared with what stood at its path; by the second a part is compared with itself, wherever its file stands now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from vq.core.errors import UserError, listing
from vq.interfaces import HiddenLoss, Loss
from vq.interfaces.pretrained import frozen_parts
from vq.io.digest import file_digest
from vq.io.runs import Files, Parts


def recorded_of(model: nn.Module) -> tuple[Files, Parts]:
    """What a checkpoint of ``model`` records: the hashes of the files of its frozen parts, and the files of each part."""
    parts = {name: [str(file) for file in part.pretrained_files()] for name, part in frozen_parts(model).items()}
    files = {file for found in parts.values() for file in found}
    return {file: file_digest(file) for file in sorted(files)}, parts


def check_parts(checkpoint: Path, files: Mapping[str, str], parts: Mapping[str, list[str]], model: nn.Module) -> None:
    """Raise if a frozen part of ``model`` has other weights than the part of that name had in training.

    Networks inside of losses are not compared, since they only measure, unless a trained head of the loss stands on them; nor
    parts that carry a digest of their own in the weights; nor files that are missing, which ``load_pretrained`` reports.
    """
    losses = {name: part for name, part in model.named_modules() if isinstance(part, Loss)}
    measuring = tuple(f'{name}.' for name, part in losses.items() if not isinstance(part, HiddenLoss))
    for name, part in frozen_parts(model).items():
        if part.kept or f'{name}.'.startswith(measuring):
            continue
        own = part.pretrained_files()
        then = parts.get(name, [str(file) for file in own if str(file) in files])  # older checkpoints: by path
        if not then or not all(file.is_file() for file in own):
            continue
        before, now = ([*digests] for digests in (map(files.get, then), map(file_digest, own)))
        if before != now:
            raise UserError(
                f"{checkpoint} was trained with other weights of the frozen part '{name}': {_named(then, before)} then, "
                f'{_named(own, now)} now',
                'What was trained on its outputs does not fit other weights: give the files of the training.',
            )


def _named(files: Iterable[str | Path], digests: Iterable[str | None]) -> str:
    return listing(f'{file} ({digest!s:.12})' for file, digest in zip(files, digests, strict=True))
