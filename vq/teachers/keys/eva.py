"""Keys of EVA-CLIP's files, by its authors or by open_clip -> those of timm's ``Eva``. The text half is left out.

The authors store the rotary tables, which are computed here, and the biases of query and value apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vq.io.published.keymap import drop, map_keys, rename
from vq.teachers.keys.clip import OTHERS
from vq.teachers.keys.openclip import TEXT_HALF

ROTARY = 'rotary tables'
_BLOCK, _OURS = 'visual.blocks.{i}.', 'blocks.{i}.'

AUTHORS = [
    *(rename(f'{_BLOCK}attn.{part}_bias', f'{_OURS}attn.{part}_proj.bias') for part in 'qv'),
    *(
        rename(f'{_BLOCK}{theirs}.{{leaf}}', f'{_OURS}{ours}.{{leaf}}')
        for theirs, ours in (
            ('attn.inner_attn_ln', 'attn.norm'),
            ('mlp.ffn_ln', 'mlp.norm'),
            ('mlp.w1', 'mlp.fc1_g'),
            ('mlp.w2', 'mlp.fc1_x'),
            ('mlp.w3', 'mlp.fc2'),
        )
    ),
    drop('visual.rope.{rest}', ROTARY),
    drop(f'{_BLOCK}attn.rope.{{rest}}', ROTARY),
    rename('visual.{rest}', '{rest}'),
    *TEXT_HALF,
    *OTHERS,
]
OPENCLIP = [rename('visual.trunk.{rest}', '{rest}'), *TEXT_HALF, *OTHERS]


def eva_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder of a file, under the keys of ``timm.models.eva.Eva``."""
    if not any(name.startswith('visual.') for name in published):
        return dict(published)  # the image encoder alone
    theirs = any(name.startswith('visual.trunk.') for name in published)
    return map_keys(published, OPENCLIP if theirs else AUTHORS, {})[0]
