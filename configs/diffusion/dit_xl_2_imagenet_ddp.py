"""DiT-XL/2 on ImageNet at 256 pixels, on the latents of a KL autoencoder: 32 x 32 cells of 4 channels, 256 tokens.

    auto_torchrun -m vq.train diffusion/dit_xl_2_imagenet_ddp configs/diffusion/dit_xl_2_imagenet_ddp.py \
        --config-options tokenizer_run::sd-vae-ft-ema.converted
    auto_torchrun -m vq.sample diffusion/dit_xl_2_imagenet_ddp --num-samples 50000 --format npz

Hyperparameters as published (Peebles and Xie 2023): 1,000 steps of linear betas, epsilon and a learned variance, AdamW with a
constant learning rate of 1e-4 and no weight decay, 256 images a step, labels dropped in a tenth, EMA 0.9999, 250 ancestral
steps. Published, from the paper: FID 19.47 after 400,000 steps and 9.62 after 7 million, without guidance; 2.27 with guidance
1.5. Its guidance acts on the first three channels (``guided_channels=3``). Hardware and hours: not measured. Never trained
here. The published weights: vq convert dit FILE.
"""

from vq.recipes import dit

_export_ = dit(_kwargs_, size='XL', iters=7_000_000)
