"""Run a feature network on blocks of fixed size, so that features do not depend on the other images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.interfaces import FeatureNetwork, Features
from vq.metrics.features.store import FeatureStore

BLOCK = 32


class Blocks:
    """Takes batches of any size, runs the network on ``BLOCK`` images at a time, and adds the features to the store.

    The tiling of a matrix product depends on its shape, and rounding depends on the tiling: the same image in batches of 4
    and of 16 has features that differ in the last digit. In blocks of fixed size features are bitwise equal, whatever
    the position of an image in its block. The last block is padded with black images, and their features are dropped.
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
        """Run the network on the remaining images."""
        for shape, waiting in self._waiting.items():
            if waiting:
                keys, images = (torch.cat(parts) for parts in zip(*waiting, strict=True))
                padded = torch.cat([images, images.new_zeros(BLOCK - len(images), *shape)])
                found = self.network(padded)
                kept = Features(*(None if value is None else value[: len(keys)] for value in found))  # type: ignore[arg-type]
                self.store.add(keys, kept)
        self.reset()
