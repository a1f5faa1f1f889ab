"""Frozen models that understand images: what metrics, encoders, distillation and alignment take from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from vq.interfaces.pretrained import Pretrained

# 'last': after the last block and the final norm.  'penultimate': after the last block but one.  'sum_of_last_K': the sum of
# the outputs of the last K blocks.  A number or several: the outputs of these blocks, counted from 0 or, if negative, from
# the end, with their channels one after the other.  Families can have further names. Only 'last' has the final norm.
Layers = str | int | Sequence[int]


class TeacherFeatures(NamedTuple):
    """What a teacher says of images. Class tokens and registers are no patches: they are not in the map."""

    patches: Tensor  # (B, C, h, w), one vector per patch
    pooled: Tensor  # (B, D), one vector per image, whatever the layers


class Teacher(nn.Module, Pretrained):
    """images (B, 3, H, W) float in [-1, 1], H and W multiples of ``patch_size`` -> ``TeacherFeatures``.

    Frozen: in eval mode, its parameters without gradients. Gradients reach the images; ``target`` has none at all.
    """

    patch_size: int
    width: int  # C of one layer
    dimension: int  # D
    depth: int  # number of blocks

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of ``preprocess``, for values in [0, 1]: 0.5 for those that take images in [-1, 1]."""
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def preprocess(self, image: Tensor) -> Tensor:
        """Images in [-1, 1] -> the input of the network, of the same size, in the normalisation of its training."""
        raise NotImplementedError

    def features(self, image: Tensor, layers: Layers = 'last') -> TeacherFeatures:
        raise NotImplementedError

    def channels(self, layers: Layers = 'last') -> int:
        """C of the patch map of ``layers``."""
        raise NotImplementedError

    def resize(self, image: Tensor, cells: tuple[int, int]) -> Tensor:
        """The image at the size that gives a patch map of ``cells``, (h, w)."""
        raise NotImplementedError

    @torch.no_grad()
    def target(self, image: Tensor, cells: tuple[int, int], layers: Layers = 'last') -> Tensor:
        """The patch map (B, C, h, w) to distil or align to, for a model with ``cells``, (h, w)."""
        return self.features(self.resize(image, cells), layers).patches

    def train(self, mode: bool = True) -> Self:
        """Frozen: always in eval mode."""
        return super().train(False)
