"""DINOv2's vision transformer as a feature network: the FD-DINOv2 of Stein et al. 2023."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError, UserError, listing
from vq.interfaces import FeatureNetwork, Features
from vq.io.pretrained import pretrained_file, pretrained_root
from vq.io.values import check_values
from vq.io.weights import read_weights
from vq.nn.pillow_resize import resize_like_pillow
from vq.nn.precision import exact_matmul, no_autocast
from vq.registries import VQFeatureNetworkRegistry

FILE = 'dinov2/dinov2_vitl14_pretrain.pth'
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
PATCH = 14
OFFSET = 0.1  # added to the number of patches when position embeddings are resized, as in the published network
UNUSED = ('mask_token',)  # for training only


@VQFeatureNetworkRegistry.register_()
class DINOv2(FeatureNetwork):
    """uint8 images -> the class token after the last layer norm, ``dimension`` numbers in fp32. There are no logits.

    Both sides of images are resized to ``image_size`` as Pillow does (bicubic, antialiased, 8 bits; an image that is not
    square is squeezed, not cropped). Images are normalised with ImageNet's mean and standard deviation. The position
    embeddings of the published file, for 37 x 37 patches, are resized once, when weights are loaded, as the published
    network does.

    The defaults are ViT-L/14, the network of FD-DINOv2's definition. Needs the package timm. Until ``load_pretrained``
    weights are random.
    """

    mean: Tensor  # (1, 3, 1, 1), like std; for 8-bit values
    std: Tensor

    def __init__(
        self, dimension: int = 1024, depth: int = 24, heads: int = 16, image_size: int = 224, file: str = FILE
    ) -> None:
        super().__init__()
        if image_size % PATCH or dimension % heads:
            raise ConfigError(
                f'DINOv2 with images of {image_size} pixels and {heads} heads for {dimension} channels',
                f'Give an image_size that {PATCH} divides, and heads that divide the dimension.',
            )
        self.dimension, self.image_size, self.file = dimension, image_size, file
        self.transformer = _transformer(dimension, depth, heads, image_size)
        for name, values in (('mean', MEAN), ('std', STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @property
    def description(self) -> dict[str, str]:
        size = self.image_size
        return {
            'network': f'DINOv2 ({self.dimension} features, {len(self.transformer.blocks)} layers)',
            'preprocessing': f'to {size} x {size} bicubic antialiased, 8 bits; mean and deviation of ImageNet',
            'precision': 'fp32',
        }

    def prepare(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> the network's input, fp32 (B, 3, image_size, image_size)."""
        return (resize_like_pillow(image, self.image_size, self.image_size).float() - self.mean) / self.std

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ConfigError(
                f'DINOv2 was given {image.dtype} of the shape {tuple(image.shape)}', 'Give uint8 images (B, 3, H, W).'
            )
        with no_autocast(image.device), exact_matmul():
            return Features(self.transformer(self.prepare(image)).float())

    def pretrained_files(self) -> list[Path]:
        return [pretrained_root() / self.file]

    def load_pretrained(self) -> None:
        file = pretrained_file(self.file)
        self.fill(read_weights(file)[0], str(file))

    def fill(self, published: dict[str, Tensor], source: str) -> None:
        """Load the weights of the published file, by parameter names."""
        given = {name: value for name, value in published.items() if name not in UNUSED}
        if 'pos_embed' in given and given['pos_embed'].ndim == 3:
            given['pos_embed'] = resize_positions(given['pos_embed'], self.image_size // PATCH)
        own = self.transformer.state_dict()
        odd = [name for name in own if name not in given or given[name].shape != own[name].shape]
        odd += [name for name in given if name not in own]
        if odd:
            raise UserError(
                f'{source} is not the DINOv2 of {self.dimension} features and {len(self.transformer.blocks)} layers\n'
                f'  missing, unexpected, or of another shape: {listing(odd, most=4)}',
                f'Give {Path(FILE).name}, or the dimension, depth and heads of your file.',
            )
        check_values(given, own, source)
        self.transformer.load_state_dict(given)


def resize_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), the class token's first -> (1, 1 + side * side, D).

    Bicubic without antialiasing, by the factor (side + 0.1) / n and not side / n, as in published figures.
    """
    grid = round((positions.shape[1] - 1) ** 0.5)
    if grid == side or grid**2 + 1 != positions.shape[1]:
        return positions
    first, rest = positions[:, :1].float(), positions[:, 1:].float()
    plane = rest.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    factor = (side + OFFSET) / grid
    plane = F.interpolate(plane, scale_factor=(factor, factor), mode='bicubic')  # (1, D, side, side)
    return torch.cat([first, plane.flatten(2).transpose(1, 2)], 1)


def _transformer(dimension: int, depth: int, heads: int, image_size: int) -> Any:
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise ConfigError('DINOv2 needs the package timm, which is not installed', "pip install 'vq[features]'") from error
    return VisionTransformer(
        img_size=image_size,
        patch_size=PATCH,
        embed_dim=dimension,
        depth=depth,
        num_heads=heads,
        init_values=1e-5,
        num_classes=0,
        global_pool='token',
    )
