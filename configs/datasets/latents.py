"""A latent cache, which vq data latents wrote: see docs/latents.md. Options: folder, sample, mirror, normalized."""

from vq.recipes import latent_cache

_export_ = latent_cache(_kwargs_)
