"""Frozen networks of this toolkit's own runs: checkpoints keep the digest of the file in place of the weights."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.interfaces import Pretrained


class KeptDigest(nn.Module, Pretrained):
    """``digest``, the SHA-256 of the file that was read, goes into checkpoints in place of the weights. Loading such a
    checkpoint with another file is an error: what was trained on the network's outputs would be useless.
    """

    kept: ClassVar[tuple[str, ...]] = ('digest',)
    noun: ClassVar[str]  # in messages
    digest: Tensor  # (32,) uint8; zeros: weights are random

    def add_digest(self) -> None:
        """To call in the constructor."""
        self.register_buffer('digest', torch.zeros(32, dtype=torch.uint8))

    def keep_digest(self, sha256: str, source: str) -> None:
        """To call when weights were read. An error if a checkpoint already said that they are of another file."""
        found = torch.frombuffer(bytearray.fromhex(sha256), dtype=torch.uint8)
        self._compare(found, source)
        self.digest.copy_(found)

    def _compare(self, digest: Tensor, what: str) -> None:
        own, other = self.digest.cpu(), digest.cpu()
        if own.any() and other.any() and not torch.equal(own, other):
            raise UserError(
                f'{what} belongs to another {self.noun}: its file has the SHA-256 {_hexadecimal(other):.12}, '
                f'and the file of this {self.noun} has {_hexadecimal(own):.12}',
                f'Give the {self.noun} that was used in training: the config in the run folder names it.',
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        given = state_dict.get(f'{prefix}digest')
        if isinstance(given, Tensor):
            self._compare(given, 'the loaded checkpoint')
        super()._load_from_state_dict(state_dict, prefix, *others)  # type: ignore[no-untyped-call]


def _hexadecimal(digest: Tensor) -> str:
    return bytes(digest.tolist()).hex()
