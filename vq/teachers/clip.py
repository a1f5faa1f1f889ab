"""CLIP's image encoder as a feature network: the embeddings of CMMD (Jayasumana et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.errors import ConfigError, UserError, listing
from vq.interfaces import FeatureNetwork, Features
from vq.io.pretrained import pretrained_file, pretrained_root
from vq.io.values import check_values
from vq.io.weights import read_weights
from vq.nn.pillow_resize import crop_centre, resize_like_pillow
from vq.nn.precision import exact_matmul, no_autocast
from vq.registries import VQFeatureNetworkRegistry

FILE = 'clip/clip-vit-large-patch14-336.bin'
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images
PATCH = 14
OTHERS = ('text_model.', 'text_projection.', 'logit_scale')  # the text half of the file
UNUSED = ('vision_model.embeddings.position_ids',)  # the buffer 0, 1, 2, ...


@VQFeatureNetworkRegistry.register_()
class CLIPImages(FeatureNetwork):
    """uint8 images -> the projected embedding of ``dimension`` numbers in fp32, not normalized. There are no logits.

    The centre square is resized to ``image_size`` as Pillow does (bicubic, antialiased, 8 bits) and normalised with CLIP's
    mean and standard deviation, as in the code of CMMD's authors. ``cmmd`` itself normalizes embeddings to unit length.

    The defaults are ViT-L/14 at 336 pixels, the network of CMMD's definition. Needs the package transformers. The file has
    the parameter names of transformers, with or without the text half. Until ``load_pretrained`` weights are random.
    """

    mean: Tensor  # (1, 3, 1, 1), like std; for 8-bit values
    std: Tensor

    def __init__(
        self,
        dimension: int = 768,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        image_size: int = 336,
        file: str = FILE,
    ) -> None:
        super().__init__()
        if image_size % PATCH or width % heads:
            raise ConfigError(
                f'CLIPImages with images of {image_size} pixels and {heads} heads for {width} channels',
                f'Give an image_size that {PATCH} divides, and heads that divide the width.',
            )
        self.dimension, self.depth, self.image_size, self.file = dimension, depth, image_size, file
        self.encoder = _encoder(dimension, width, depth, heads, image_size)
        for name, values in (('mean', MEAN), ('std', STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @property
    def description(self) -> dict[str, str]:
        size = self.image_size
        return {
            'network': f'CLIPImages ({self.dimension} features, {self.depth} layers)',
            'preprocessing': f'centre square to {size} x {size} bicubic antialiased, 8 bits; mean and deviation of CLIP',
            'precision': 'fp32',
        }

    def prepare(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> the network's input, fp32 (B, 3, image_size, image_size)."""
        return (resize_like_pillow(crop_centre(image), self.image_size, self.image_size).float() - self.mean) / self.std

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ConfigError(
                f'CLIP was given {image.dtype} of the shape {tuple(image.shape)}', 'Give uint8 images (B, 3, H, W).'
            )
        with no_autocast(image.device), exact_matmul():
            return Features(self.encoder(pixel_values=self.prepare(image)).image_embeds.float())

    def pretrained_files(self) -> list[Path]:
        return [pretrained_root() / self.file]

    def load_pretrained(self) -> None:
        file = pretrained_file(self.file)
        self.fill(read_weights(file)[0], str(file))

    def fill(self, published: dict[str, Tensor], source: str) -> None:
        """Load the image half of the published file, by parameter names."""
        given = {name: value for name, value in published.items() if not name.startswith(OTHERS) and name not in UNUSED}
        own = self.encoder.state_dict()
        odd = [name for name in own if name not in given or given[name].shape != own[name].shape]
        odd += [name for name in given if name not in own]
        if odd:
            raise UserError(
                f'{source} is not the CLIP of {self.dimension} features and {self.depth} layers\n'
                f'  missing, unexpected, or of another shape: {listing(odd, most=4)}',
                'Give pytorch_model.bin or model.safetensors of openai/clip-vit-large-patch14-336, or the sizes of your file.',
            )
        check_values(given, own, source)
        self.encoder.load_state_dict(given)


def _encoder(dimension: int, width: int, depth: int, heads: int, image_size: int) -> Any:
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except ImportError as error:
        raise ConfigError(
            'CLIPImages needs the package transformers, which is not installed', "pip install 'vq[features]'"
        ) from error
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=dimension,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            image_size=image_size,
            patch_size=PATCH,
        )
    )
