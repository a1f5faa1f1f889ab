"""Published second stages on photographs: DiT, DiT with a wide head, and diffusion of pixels."""

from __future__ import annotations

from typing import Any

from vq.core.recipe import Config, Given, recipe
from vq.recipes.diffusion import diffusion

EPOCH = 1251  # steps of 1,024 images in ImageNet's 1,281,167
TINY_HEAD = dict(dim=32, depth=2, heads=2, head_dim=48, head_depth=1, head_heads=2, patch=1)


@recipe(diffusion)
def dit(given: Given) -> Config:
    """DiT (Peebles and Xie 2023), on the latents of a KL autoencoder of 8 x 8 pixels per cell.

    x0 ~ N(mu, sigma^2) of the autoencoder, of unit variance;   z_t = alpha_t x0 + sigma_t eps, 1,000 linear betas
    loss = |eps' - eps|^2 + the variational bound of the learned variance
    """
    path = dict(path='beta', noise_schedule='linear', learned_variance=True, prediction='epsilon')
    drawn = dict(sampler='Ancestral', steps=250, guidance=1.5)
    training = dict(lr=1e-4, clip=None, ema=0.9999, batch_size=256, sample_posterior=True)
    first = dict(it_config='configs/two_stage/klvae_f8_imagenet_ddp.py')
    return diffusion(given, patch=2, **first, **path, **drawn, **training)


@recipe(diffusion)
def dit_dh(given: Given) -> Config:
    """The second stage of representation autoencoders (RAE, 2025): DiT with a wide head on 16 x 16 latents of 768 channels.

    z_t = (1 - t) x0 + t eps,  loss = |f(z_t, t, class) - (eps - x0)|^2,  t = s u / (1 + (s - 1) u),  logit u ~ N(0, 1)

    s = sqrt(16 * 16 * 768 / 4096) = 6.9: the more numbers a latent has, the more noise hides it.
    """
    network: dict[str, Any] = dict(type='WideHeadDiT', dim=1152, depth=28, heads=16, head_dim=2048, head_depth=2)
    path = dict(path='flow', shift=(16 * 16 * 768 / 4096) ** 0.5, times='logit_normal')
    schedule = dict(type='LinearSchedule', warmup=40 * EPOCH, final=0.1, length=800 * EPOCH)
    training = dict(lr=2e-4, betas=(0.9, 0.95), clip=1.0, ema=0.9995, batch_size=1024, schedule=schedule, iters=800 * EPOCH)
    drawn = dict(sampler='Euler', steps=50, guidance=1.0)
    first = dict(it_config='configs/two_stage/rae_dinov2_b_imagenet_ddp.py')
    return diffusion(given, denoiser=network, tiny_denoiser=TINY_HEAD, **first, **path, **drawn, **training)


@recipe(diffusion, hides=('tokenizer_run', 'tokenizer', 'it_config', 'it_state_dict', 'ir_config', 'ir_state_dict', 'gives'))
def pixel_diffusion(given: Given) -> Config:
    """Diffusion of pixels, with the choices of simple diffusion (Hoogeboom et al. 2023) on a DiT with patches of 8 x 8 pixels.

    z_t = alpha x0 + sigma eps,  log alpha^2 / sigma^2 = -2 log tan(pi t / 2) + 2 log(64 / 256),  loss = |f(z_t, t) - v|^2

    Neighbouring pixels of a large image tell the same, so that the noise of a small image hides too little of it.
    """
    path = dict(path='cosine', shift=256 / 64, prediction='v')
    training = dict(lr=1e-4, ema=0.9999, batch_size=256, iters=500_000)
    drawn = dict(sampler='DDIM', steps=250, guidance=1.5, threshold=1.0)
    return diffusion(given, pixels=True, size='L', patch=8, **path, **training, **drawn)
