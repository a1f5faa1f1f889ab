"""A teacher without a package: one convolution over patches, which counts its calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from vq.interfaces import Teacher, TeacherFeatures
from vq.registries import VQTeacherRegistry


@VQTeacherRegistry.register_()
class PatchTeacher(Teacher):
    """Patches of ``patch`` pixels -> ``width`` channels; without a ``file`` the same weights in every process."""

    def __init__(self, width: int = 6, patch: int = 4, file: str | None = None) -> None:
        super().__init__()
        self.file = file
        self.patch_size, self.width, self.dimension, self.depth = patch, width, width, 1
        self.network = nn.Conv2d(3, width, patch, patch)
        for parameter in self.network.parameters():
            if not parameter.is_meta:
                noise = torch.Generator().manual_seed(1)
                parameter.data.copy_(torch.randn(parameter.shape, generator=noise) / parameter[0].numel() ** 0.5)
        self.seen: list[tuple[tuple[int, ...], torch.dtype, bool]] = []  # shape, type of the features, gradients on
        self.requires_grad_(False)
        self.eval()

    def preprocess(self, image: Tensor) -> Tensor:
        return image

    def features(self, image: Tensor, layers: Any = 'last') -> TeacherFeatures:
        patches = self.network(image)
        self.seen.append((tuple(image.shape), patches.dtype, torch.is_grad_enabled()))
        return TeacherFeatures(patches, patches.mean((2, 3)))

    def channels(self, layers: Any = 'last') -> int:
        return self.width

    def resize(self, image: Tensor, cells: tuple[int, int]) -> Tensor:
        size = (cells[0] * self.patch_size, cells[1] * self.patch_size)
        return image if image.shape[-2:] == size else F.interpolate(image, size, mode='bilinear')

    def pretrained_files(self) -> list[Path]:
        return [] if self.file is None else [Path(self.file)]

    def load_pretrained(self) -> None:
        if self.file is not None:
            self.network.load_state_dict(load_file(self.file))
