"""From texts to the numbers of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import ConfigError, UserError
from vq.io.pretrained import pretrained_file, pretrained_root

BYTES = 'bytes'  # in place of a folder: the numbers are those of the bytes of a text, plus 1


def tokenizer_files(folder: str, names: Sequence[str]) -> list[Path]:
    return [] if folder == BYTES else [pretrained_root() / folder / name for name in names]


class Tokenized:
    """Texts -> (B, length) int64, cut, and filled up with ``padding``.

    ``folder``: of the files ``names``, below the folder of pretrained files, or 'bytes', which needs no file. ``open``: makes
    a tokenizer of transformers from these files.
    """

    def __init__(
        self, folder: str, names: Sequence[str], open: Callable[..., Any], length: int, vocabulary: int, padding: int | None
    ) -> None:
        if folder == BYTES and vocabulary < 257:
            raise ConfigError(f'the tokenizer is bytes, and the vocabulary has {vocabulary} entries', 'Give 257 or more.')
        self.folder, self.names, self.open = folder, tuple(names), open
        self.length, self.vocabulary, self.padding = length, vocabulary, padding
        self._tokenizer: Any = None

    def load(self) -> None:
        """Read the files; the error names one that is missing."""
        if self.folder != BYTES:
            files = [str(pretrained_file(f'{self.folder}/{name}')) for name in self.names]
            try:
                self._tokenizer = self.open(*files)
            except ImportError as error:
                raise ConfigError(
                    f'reading texts needs the package {error.name}, which is not installed', "pip install 'vq[features]'"
                ) from error
            except (ValueError, KeyError, OSError) as error:
                raise UserError(f'{" and ".join(files)} cannot be read: {error}', 'Fetch them again.') from error

    def __call__(self, texts: Sequence[str], device: torch.device) -> Tensor:
        if device.type == 'meta':  # to count and to estimate memory needs no files
            return torch.zeros(len(texts), self.length, dtype=torch.int64, device=device)
        rows = [self._bytes_of(text) if self.folder == BYTES else self._ids_of(text) for text in texts]
        fill = self.padding
        if fill is None:  # the end of a text
            fill = 0 if self._tokenizer is None else int(self._tokenizer.eos_token_id)
        padded = [row + [fill] * (self.length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64, device='cpu').view(len(texts), self.length).to(device)

    def _bytes_of(self, text: str) -> list[int]:
        return [byte + 1 for byte in text.encode()[: self.length]]

    def _ids_of(self, text: str) -> list[int]:
        if self._tokenizer is None:
            self.load()
        ids: list[int] = self._tokenizer(text, truncation=True, max_length=self.length)['input_ids']
        if max(ids) >= self.vocabulary:
            raise UserError(
                f'the tokenizer in {self.folder} has a token {max(ids)}, and the vocabulary of the network {self.vocabulary}',
                'Take tokenizer and weights of one model.',
            )
        return ids
