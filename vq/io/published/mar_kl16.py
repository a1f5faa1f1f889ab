"""MAR's KL autoencoders, KL-16 and its relatives: the names of latent diffusion's ``AutoencoderKL``."""

from __future__ import annotations

import torch

from vq.core.errors import UserError
from vq.io.published.autoencoder import assemble, get, level_count
from vq.io.published.keymap import Converted, State, drop, map_keys, rename
from vq.io.published.taming import AUTOENCODER, vocabulary

NESTS = ('model', 'state_dict')

RULES = (*AUTOENCODER, drop('loss.{rest}', 'losses: needed in training only'))


def convert(state: State, *, image_size: int = 256, kl_weight: float = 1e-6, latent_scale: float | None = None) -> Converted:
    """``kl_weight`` is for further training. ``latent_scale``: second stages see latents times this, which becomes the
    deviation of the latents; 0.2325 for the published transformers of MAR, None for latents as they are."""
    mapped, dropped = map_keys(state, RULES, vocabulary(level_count(state, 'decoder.up.')))
    moments, taken = get(mapped, 'post_encode.conv.weight'), get(mapped, 'pre_decode.conv.weight')
    if moments.shape[0] != 2 * taken.shape[1]:
        raise UserError(
            f'it encodes to {moments.shape[0]} channels and decodes from {taken.shape[1]}',
            'A KL autoencoder has a mean and a variance for each channel; this file has not. Try kind taming.',
        )
    converted = assemble(mapped, None, image_size, dropped)
    converted.tokenizer['kl_weight'] = kl_weight
    if latent_scale is not None:
        if not latent_scale > 0:
            raise UserError(f'latent_scale is {latent_scale}', 'Give a number above 0; 0.2325 is published.')
        mean, deviation = torch.zeros(taken.shape[1]), torch.full((taken.shape[1],), 1 / latent_scale)
        converted.tensors.update({'tokenizer.statistics.mean': mean, 'tokenizer.statistics.deviation': deviation})
    return converted


def restore(tensors: State) -> dict[str, torch.Tensor]:
    """The reverse of ``convert``: tensors of a task under the names of the file. Statistics of latents have none there."""
    own = {key.removeprefix('tokenizer.'): value for key, value in tensors.items() if '.statistics.' not in key}
    known = vocabulary(level_count(own, 'decoder.levels.'))
    words = {name: {ours: theirs for theirs, ours in pairs.items()} for name, pairs in known.items()}
    return map_keys(own, [rename(rule.targets[0], rule.source) for rule in AUTOENCODER], words)[0]
