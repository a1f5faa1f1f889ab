"""Keys of Hugging Face's copies of SigLIP and SigLIP2 -> those of the image encoder alone. The text half is left out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vq.io.published.keymap import drop, map_keys, rename
from vq.teachers.keys.clip import OTHERS, POSITIONS, TEXT

RULES = [
    drop('vision_model.embeddings.position_ids', POSITIONS),
    rename('vision_model.{rest}', '{rest}'),
    drop('text_model.{rest}', TEXT),
    drop('logit_scale', TEXT),
    drop('logit_bias', TEXT),
    *OTHERS,
]


def siglip_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder of a file, under the keys that it has without the prefix ``vision_model``."""
    return map_keys(published, RULES, {})[0]
