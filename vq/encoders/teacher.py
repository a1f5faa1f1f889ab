"""A teacher as an encoder: for probes of its features, and for models on top of them."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Encoder, Layers, Teacher
from vq.registries import VQEncoderRegistry


@VQEncoderRegistry.register_()
class TeacherEncoder(Encoder):
    """image (B, 3, H, W) -> the teacher's patch map (B, out_channels, h, w) of ``layers``, without gradients.

    - ``downsampling``: pixels a side of a cell. The image is resized to give that many cells; None: it is not resized, and a
      cell is a patch.
    """

    def __init__(self, teacher: Teacher, layers: Layers = 'last', downsampling: int | None = None) -> None:
        super().__init__()
        self.teacher, self.layers = teacher, layers
        self.out_channels = teacher.channels(layers)
        self.downsampling = downsampling or teacher.patch_size

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if height % self.downsampling or width % self.downsampling:
            raise ConfigError(
                f'images of {height} x {width} are no whole number of cells of {self.downsampling} pixels',
                'Give another image size, or another downsampling.',
            )
        return self.teacher.target(image, (height // self.downsampling, width // self.downsampling), self.layers)
