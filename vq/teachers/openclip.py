"""OpenCLIP's image encoders (Cherti et al. 2023), by open_clip_torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vq.nn.positions import resize_positions
from vq.registries import VQTeacherRegistry
from vq.teachers.clip import CLIPTeacher
from vq.teachers.keys.openclip import openclip_keys
from vq.teachers.transformer import Tokens, TransformerTeacher

FILE = 'openclip/ViT-B-16-laion2b_s34b_b88k.bin'
INCEPTION = (0.5, 0.5, 0.5)


@VQTeacherRegistry.register_()
class OpenCLIPTeacher(TransformerTeacher):
    """The pooled vector is the projected class token, ``dimension`` numbers, not normalized. Layer 'projected': the patches
    after the final norm and the same projection.

    ===========  =========  =====  =====  =====  ==========  =========
    network      dimension  width  depth  heads  patch_size  mlp_ratio
    ===========  =========  =====  =====  =====  ==========  =========
    ViT-B-16           512    768     12     12          16          4
    ViT-L-14           768   1024     24     16          14          4
    ViT-H-14          1024   1280     32     16          14          4
    ViT-bigG-14       1280   1664     48     16          14     4.9231
    ===========  =========  =====  =====  =====  ==========  =========

    - ``activation``: 'quick_gelu' for the files of OpenAI, DFN and MetaCLIP, x sigmoid(1.702 x).
    - ``normalisation``: by mean and deviation of OpenAI's CLIP, or by 0.5 and 0.5 as in Inception (the ViT-L-14 of LAION-2B).

    The defaults are ViT-B-16. Positions are resized to images of another size by antialiased bicubic interpolation, as
    OpenCLIP does when it loads a file into a network of another size. The file is the state dict of open_clip's model
    (``open_clip_pytorch_model.bin``, ``open_clip_model.safetensors``). Needs the package open_clip_torch.
    """

    MEAN, STD = CLIPTeacher.MEAN, CLIPTeacher.STD
    extra = 'openclip'
    named = ('projected',)

    def __init__(
        self,
        dimension: int = 512,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        activation: Literal['gelu', 'quick_gelu'] = 'gelu',
        normalisation: Literal['clip', 'inception'] = 'clip',
        file: str = FILE,
    ) -> None:
        self.mlp_ratio, self.activation = mlp_ratio, activation
        if normalisation == 'inception':
            self.MEAN = self.STD = INCEPTION  # type: ignore[misc]  # of this one
        super().__init__(dimension, width, depth, heads, image_size, patch_size, file)

    def make(self, heads: int) -> nn.Module:
        from open_clip.transformer import QuickGELU, VisionTransformer

        network: nn.Module = VisionTransformer(
            image_size=self.image_size,
            patch_size=self.patch_size,
            width=self.width,
            layers=self.depth,
            heads=heads,
            mlp_ratio=self.mlp_ratio,
            output_dim=self.dimension,
            act_layer=QuickGELU if self.activation == 'quick_gelu' else nn.GELU,
        )
        return network

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        network: Any = self.network
        patches = network.conv1(x)  # (B, C, h, w)
        height, width = patches.shape[-2:]
        positions = resize_positions(network.positional_embedding[None], height, width, offset=0, antialias=True)
        first = network.class_embedding.to(patches.dtype).expand(len(x), 1, -1)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1) + positions.to(patches.dtype)
        tokens = network.ln_pre(tokens)
        found: dict[int, Tensor] = {}
        for number, block in enumerate(network.transformer.resblocks):
            tokens = block(tokens)
            if number in blocks:
                found[number] = tokens
        last = network.ln_post(tokens)
        return Tokens(found, last, last[:, 0] @ network.proj)

    def select(self, name: str, tokens: Tokens) -> Tensor:
        network: Any = self.network
        projected: Tensor = tokens.last @ network.proj
        return projected

    def channels(self, layers: Any = 'last') -> int:
        return self.dimension if layers == 'projected' else super().channels(layers)

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return openclip_keys(published)
