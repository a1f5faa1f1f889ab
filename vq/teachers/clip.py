"""CLIP's image encoder (Radford et al. 2021), by transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from vq.nn.pillow_resize import crop_centre, resize_like_pillow
from vq.registries import VQFeatureNetworkRegistry, VQTeacherRegistry
from vq.teachers.keys.clip import clip_keys
from vq.teachers.transformer import TeacherNetwork, Tokens, TransformerTeacher

FILE = 'clip/clip-vit-large-patch14-336.bin'


@VQTeacherRegistry.register_()
class CLIPTeacher(TransformerTeacher):
    """The pooled vector is the projected class token, ``dimension`` numbers, not normalized. Layer 'projected': the patches
    after the final norm and the same projection, as in BEiT v2 and VQ-KD.

    The defaults are ViT-L/14 at 336 pixels. ViT-B/16 is ``CLIPTeacher(512, 768, 12, 12, 224, 16)``. Positions are resized
    bicubically without antialiasing to images of another size, as transformers does; OpenAI's network takes one size only.

    The file is OpenAI's own (``ViT-B-16.pt``, a TorchScript archive), or has the parameter names of transformers, with or
    without the text half. Needs the package transformers.
    """

    MEAN = (0.48145466, 0.4578275, 0.40821073)
    STD = (0.26862954, 0.26130258, 0.27577711)
    named = ('projected',)

    def __init__(
        self,
        dimension: int = 768,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        image_size: int = 336,
        patch_size: int = 14,
        file: str = FILE,
    ) -> None:
        super().__init__(dimension, width, depth, heads, image_size, patch_size, file)

    def make(self, heads: int) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        return CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=self.width,
                intermediate_size=4 * self.width,
                projection_dim=self.dimension,
                num_hidden_layers=self.depth,
                num_attention_heads=heads,
                image_size=self.image_size,
                patch_size=self.patch_size,
            )
        )

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        found: dict[int, Tensor] = {}

        def keep(number: int, module: Any, inputs: Any, output: Any) -> None:
            found[number] = output[0] if isinstance(output, tuple) else output

        vision: Any = self.network.vision_model
        hooks = [vision.encoder.layers[number].register_forward_hook(partial(keep, number)) for number in set(blocks)]
        try:  # hooks keep the outputs that are needed; output_hidden_states would keep all
            another = x.shape[-2:] != (self.image_size, self.image_size)
            output = self.network(pixel_values=x, interpolate_pos_encoding=another)
        finally:
            for hook in hooks:
                hook.remove()
        return Tokens(found, vision.post_layernorm(output.last_hidden_state), output.image_embeds)

    def select(self, name: str, tokens: Tokens) -> Tensor:
        projected: Tensor = self.network.visual_projection(tokens.last)  # type: ignore[operator]
        return projected

    def channels(self, layers: Any = 'last') -> int:
        return self.dimension if layers == 'projected' else super().channels(layers)

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return clip_keys(published)


@VQFeatureNetworkRegistry.register_()
class CLIPImages(TeacherNetwork, CLIPTeacher):
    """The embeddings of CMMD (Jayasumana et al. 2024). There are no logits.

    The centre square is resized to ``image_size`` as Pillow does (bicubic, antialiased, 8 bits) and normalised with CLIP's
    mean and standard deviation, as in the code of CMMD's authors. ``cmmd`` itself normalizes embeddings to unit length. The
    defaults are the network of CMMD's definition.
    """

    @property
    def description(self) -> dict[str, str]:
        size = self.image_size
        return {
            'network': f'CLIPImages ({self.dimension} features, {self.depth} layers)',
            'preprocessing': f'centre square to {size} x {size} bicubic antialiased, 8 bits; mean and deviation of CLIP',
            'precision': 'fp32',
        }

    def prepare(self, image: Tensor) -> Tensor:
        return self.normalise(resize_like_pillow(crop_centre(image), self.image_size, self.image_size))
