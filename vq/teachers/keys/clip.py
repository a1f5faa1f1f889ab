"""Keys of OpenAI's CLIP files, and of Hugging Face's copies of them -> those of transformers' vision model.

OpenAI stores query, key and value in one matrix, and the projection transposed. The text half is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vq.io.published.keymap import drop, map_keys, rename, split

TEXT = 'the text half'
POSITIONS = 'the buffer 0, 1, 2, ...'
_THEIRS, _OURS = 'visual.transformer.resblocks.{i}.', 'vision_model.encoder.layers.{i}.'
_QUERY_KEY_VALUE = tuple(f'{_OURS}self_attn.{name}_proj.' for name in 'qkv')

OPENAI = [
    rename('visual.class_embedding', 'vision_model.embeddings.class_embedding'),
    rename('visual.positional_embedding', 'vision_model.embeddings.position_embedding.weight'),
    rename('visual.conv1.weight', 'vision_model.embeddings.patch_embedding.weight'),
    rename('visual.proj', 'visual_projection.weight'),
    rename('visual.ln_pre.{leaf}', 'vision_model.pre_layrnorm.{leaf}'),  # so spelt
    rename('visual.ln_post.{leaf}', 'vision_model.post_layernorm.{leaf}'),
    *(split(f'{_THEIRS}attn.in_proj_{leaf}', [f'{name}{leaf}' for name in _QUERY_KEY_VALUE]) for leaf in ('weight', 'bias')),
    *(
        rename(f'{_THEIRS}{theirs}.{{leaf}}', f'{_OURS}{ours}.{{leaf}}')
        for theirs, ours in (
            ('attn.out_proj', 'self_attn.out_proj'),
            ('ln_1', 'layer_norm1'),
            ('ln_2', 'layer_norm2'),
            ('mlp.c_fc', 'mlp.fc1'),
            ('mlp.c_proj', 'mlp.fc2'),
        )
    ),
    *(drop(f'{name}.{{rest}}', TEXT) for name in ('transformer', 'token_embedding', 'ln_final')),
    *(drop(name, TEXT) for name in ('positional_embedding', 'text_projection', 'logit_scale', 'context_length', 'vocab_size')),
    drop('input_resolution', 'a number'),
]
HUGGING_FACE = [
    drop('text_model.{rest}', TEXT),
    drop('text_projection.{rest}', TEXT),
    drop('logit_scale', TEXT),
    drop('vision_model.embeddings.position_ids', POSITIONS),
]
OTHERS = [rename('{rest}', '{rest}')]


def clip_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder of a file of OpenAI or Hugging Face, under the keys of ``CLIPVisionModelWithProjection``."""
    theirs = any(name.startswith('visual.') for name in published)
    found, _ = map_keys(published, [*(OPENAI if theirs else HUGGING_FACE), *OTHERS], {})
    if theirs and 'visual_projection.weight' in found:
        found['visual_projection.weight'] = found['visual_projection.weight'].t()  # (width, D) in the file
    return found
