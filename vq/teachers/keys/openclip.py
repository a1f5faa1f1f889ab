"""Keys of open_clip's state dicts -> those of its image encoder alone. The text half is left out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vq.io.published.keymap import Rule, drop, map_keys, rename
from vq.teachers.keys.clip import OTHERS, TEXT

TEXT_HALF: list[Rule] = [
    *(drop(f'{name}.{{rest}}', TEXT) for name in ('transformer', 'token_embedding', 'ln_final', 'text')),
    *(drop(name, TEXT) for name in ('positional_embedding', 'text_projection', 'logit_scale', 'logit_bias', 'attn_mask')),
]
RULES = [rename('visual.{rest}', '{rest}'), *TEXT_HALF, *OTHERS]


def openclip_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder of a file of open_clip, under the keys of ``open_clip.transformer.VisionTransformer``."""
    if not any(name.startswith('visual.') for name in published):
        return dict(published)  # the image encoder alone, whose names are also those of the text half
    return map_keys(published, RULES, {})[0]
