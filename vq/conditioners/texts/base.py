"""What the frozen networks of texts share: files, refusal of those that do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vq.conditioners.texts.tokens import Tokenized, tokenizer_files
from vq.core.errors import ConfigError
from vq.interfaces import TextEncoder
from vq.io.pretrained import pretrained_file, pretrained_root
from vq.io.values import fill_exactly
from vq.io.weights import read_weights


class FrozenText(TextEncoder):
    """A family says how its ``network`` is built and run, and how a file is renamed. Random until ``load_pretrained``."""

    network: nn.Module
    tokenized: Tokenized

    def settle(self, network: nn.Module, tokenized: Tokenized, file: str) -> None:
        """Called once, by constructors."""
        self.network, self.tokenized, self.file = network, tokenized, file
        self.requires_grad_(False)
        self.eval()

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a published file, by the names and in the shapes of ``network``; no others."""
        raise NotImplementedError

    def run(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, dim)."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        where = next(self.network.parameters()).device
        return self.run(self.tokenized(texts, where)), None

    def pretrained_files(self) -> list[Path]:
        return [pretrained_root() / self.file, *tokenizer_files(self.tokenized.folder, self.tokenized.names)]

    def load_pretrained(self) -> None:
        file = pretrained_file(self.file)
        self.fill(read_weights(file)[0], str(file))
        self.tokenized.load()

    def fill(self, published: Mapping[str, Tensor], source: str) -> None:
        what = f'{type(self).__name__} of {self.dim} channels'
        fill_exactly(self.network, self.renamed(published), source, what, Path(self.file).name)


def check_sizes(name: str, dim: int, depth: int, heads: int, length: int) -> None:
    if min(dim, depth, heads, length) < 1 or dim % heads:
        raise ConfigError(
            f'{name} of {dim} channels, {depth} layers, {heads} heads and {length} tokens',
            'Give 1 or more of all, and heads that divide the channels.',
        )
