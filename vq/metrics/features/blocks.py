"""Images through a feature network in blocks of one size, so that a feature does not depend on what shared its batch."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.interfaces import FeatureNetwork, Features
from vq.metrics.features.store import FeatureStore

BLOCK = 32


class Blocks:
    """Takes batches of any size, gives the network ``BLOCK`` images at a time, and what it says to the store.

    A product of matrices is cut by their shapes, and so rounded by them: the same image in a batch of 4 and of 16 has
    features that differ in the last digit. In blocks of one size they are equal to the last bit, wherever in the block
    an image stands. The last block is filled up with black images, whose features are dropped.
    """

    def __init__(self, network: FeatureNetwork, store: FeatureStore) -> None:
        self.network, self.store = network, store
        self.reset()

    def reset(self) -> None:
        self._waiting: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}  # (3, H, W) -> keys (b,) and images (b, 3, H, W)

    def add(self, keys: Tensor, images: Tensor) -> None:
        """keys (B,) int64, images (B, 3, H, W) uint8, on the network's device."""
        waiting = self._waiting.setdefault(images.shape[1:], [])
        waiting.append((keys, images))
        if sum(len(part) for part, _ in waiting) < BLOCK:
            return
        keys, images = (torch.cat(parts) for parts in zip(*waiting, strict=True))
        whole = len(keys) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self.store.add(keys[start : start + BLOCK], self.network(images[start : start + BLOCK]))
        self._waiting[images.shape[1:]] = [(keys[whole:], images[whole:])] if whole < len(keys) else []

    def finish(self) -> None:
        """The images that still wait."""
        for shape, waiting in self._waiting.items():
            if waiting:
                keys, images = (torch.cat(parts) for parts in zip(*waiting, strict=True))
                padded = torch.cat([images, images.new_zeros(BLOCK - len(images), *shape)])
                found = self.network(padded)
                kept = Features(*(None if value is None else value[: len(keys)] for value in found))  # type: ignore[arg-type]
                self.store.add(keys, kept)
        self.reset()
