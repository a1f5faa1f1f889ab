"""The autoencoders of latent diffusion (CompVis), in files of their own and in checkpoints of whole models: VQ and KL."""

from __future__ import annotations

from vq.core.errors import UserError
from vq.io.published import mar_kl16, taming
from vq.io.published.keymap import Converted, State

NESTS = ('state_dict', 'model')
PREFIX = 'first_stage_model.'
OTHERS = 'not of the autoencoder'
LATENT_SCALE = 0.18215  # published networks see latents of KL autoencoders times this


def convert(
    state: State,
    *,
    image_size: int = 256,
    latent_scale: float | None = LATENT_SCALE,
    kl_weight: float = 1e-6,
    beta: float = 0.25,
) -> Converted:
    """``latent_scale``: of a KL autoencoder, which becomes the deviation of its latents; None: latents as they are. A VQ
    autoencoder has none. ``kl_weight`` and ``beta`` are for further training."""
    inner = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    whole = inner or dict(state)
    own = {key: value for key, value in whole.items() if not key.startswith(('model_ema.', 'loss.'))}
    if not any(key.startswith('decoder.') for key in own):
        raise UserError(f'it has no autoencoder: no key begins with decoder. or {PREFIX}decoder.', 'Is it a model of latents?')
    if any(key.startswith('quantize.') for key in own):
        found = taming.convert(own, image_size=image_size, legacy=False, beta=beta)
    else:
        found = mar_kl16.convert(own, image_size=image_size, kl_weight=kl_weight, latent_scale=latent_scale)
    used = {f'{PREFIX if inner else ""}{key}' for key in own}
    rest = [key for key in state if key not in used]
    return Converted(found.tokenizer, found.tensors, found.image_size, {**found.dropped, **({OTHERS: rest} if rest else {})})
