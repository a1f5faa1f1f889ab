"""DiT-B/2 on ImageNet at 256 pixels, on the latents of a KL autoencoder: 32 x 32 cells of 4 channels, 256 tokens.

    auto_torchrun -m vq.train two_stage/klvae_f8_imagenet_ddp configs/two_stage/klvae_f8_imagenet_ddp.py
    python -m vq.tools.latents two_stage/klvae_f8_imagenet_ddp --load-model-from two_stage/klvae_f8_imagenet_ddp
    auto_torchrun -m vq.train two_stage/dit_b_2_klvae_imagenet_ddp configs/two_stage/dit_b_2_klvae_imagenet_ddp.py \
        --config-options tokenizer_run::work_dirs/two_stage/klvae_f8_imagenet_ddp_latents/tokenizer.safetensors

Hyperparameters of DiT (Peebles and Xie 2023): 1,000 steps of linear betas, epsilon and a learned variance, AdamW with a
constant learning rate of 1e-4, 256 images a step, EMA 0.9999, 250 ancestral steps. Published, from the paper: FID 43.47 after
400,000 steps without guidance, on the latents of Stable Diffusion's autoencoder, which ``vq convert diffusers_kl`` reads.
Hardware and hours: not measured. Never trained here.
"""

from vq.recipes import dit

_export_ = dit(_kwargs_, size='B', iters=400_000, guidance=1.0)
