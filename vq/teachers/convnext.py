"""The ConvNeXt that torchvision trained to classify ImageNet (Liu et al. 2022), by timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces.teachers import Layers, TeacherFeatures
from vq.registries import VQTeacherRegistry
from vq.teachers.keys.torchvision import convnext_keys
from vq.teachers.transformer import Tokens, TransformerTeacher

FILE = 'torchvision/convnext_base-6075fbad.pth'
STRIDE = 32  # pixels a side of a cell of the last stage


@VQTeacherRegistry.register_()
class ConvNeXtTeacher(TransformerTeacher):
    """A supervised convolutional network; cells are those of its last stage, 32 pixels a side. The defaults are ConvNeXt-B.

    - ``upsample``: the map is enlarged so many times, bilinearly, and a patch has 32 / upsample pixels. 2 gives the 14 x 14
      cells at 224 pixels that patches of 16 pixels have.

    Layers are the blocks of the last stage. There is no class token; the pooled vector is the mean over the cells after the
    norm of the classifier. That norm is of pooled vectors, so 'last' is the last block, without a norm. A convolution takes
    any size. Needs the package timm; the file has the parameter names of torchvision.
    """

    prefix = 0
    MEAN = (0.485, 0.456, 0.406)  # of ImageNet
    STD = (0.229, 0.224, 0.225)

    def __init__(
        self,
        dims: tuple[int, ...] = (128, 256, 512, 1024),
        depths: tuple[int, ...] = (3, 3, 27, 3),
        image_size: int = 224,
        upsample: int = 1,
        file: str = FILE,
    ) -> None:
        if len(dims) != 4 or len(depths) != 4 or STRIDE % upsample:
            raise ConfigError(
                f'ConvNeXtTeacher has {len(dims)} dims, {len(depths)} depths and upsample {upsample}',
                f'Give four of each, and an upsample that divides {STRIDE}.',
            )
        self.dims, self.depths, self.upsample = tuple(dims), tuple(depths), upsample  # read by make
        super().__init__(dims[-1], dims[-1], depths[-1], 1, image_size, STRIDE // upsample, file)

    def make(self, heads: int) -> nn.Module:
        from timm.models.convnext import ConvNeXt

        return ConvNeXt(dims=self.dims, depths=self.depths, num_classes=0)

    def features(self, image: Tensor, layers: Layers = 'last') -> TeacherFeatures:
        height, width = image.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise ConfigError(
                f'ConvNeXtTeacher has cells of {STRIDE} pixels and was given images of {height} x {width}',
                f'Give sides that are multiples of {STRIDE}, or a number of cells that upsample divides.',
            )
        return super().features(image, layers)

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        network: Any = self.network
        x = network.stem(x)
        for stage in network.stages[:-1]:
            x = stage(x)
        last: Any = network.stages[-1]
        x = last.downsample(x)
        found: dict[int, Tensor] = {}
        for number, block in enumerate(last.blocks):
            x = block(x)
            if number in blocks:
                found[number] = self._tokens(x)
        return Tokens(found, self._tokens(x), network.forward_head(x, pre_logits=True))

    def _tokens(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h * w, C), enlarged."""
        if self.upsample > 1:
            x = F.interpolate(x, scale_factor=self.upsample, mode='bilinear')
        return x.flatten(2).transpose(1, 2)

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return convnext_keys(published)
