"""DiT-DH-XL on ImageNet at 256 pixels, on the latents of a representation autoencoder: 16 x 16 cells of 768 channels.

    auto_torchrun -m vq.train two_stage/rae_dinov2_b_imagenet_ddp configs/two_stage/rae_dinov2_b_imagenet_ddp.py
    python -m vq.tools.latents two_stage/rae_dinov2_b_imagenet_ddp --load-model-from two_stage/rae_dinov2_b_imagenet_ddp
    auto_torchrun -m vq.train two_stage/dit_dh_xl_rae_imagenet_ddp configs/two_stage/dit_dh_xl_rae_imagenet_ddp.py \
        --config-options tokenizer_run::work_dirs/two_stage/rae_dinov2_b_imagenet_ddp_latents/tokenizer.safetensors

The second stage of RAE, as published: trunk of 28 x 1152, head of 2 x 2048, straight path with velocity, logit-normal times
shifted by sqrt(16 * 16 * 768 / 4096), 1,024 images a step, learning rate 2e-4 with a warm-up of 40 epochs, then to 2e-5 on a
line until epoch 800, gradients clipped at 1.0, EMA 0.9995, 50 Euler steps. Betas of AdamW are assumed to be (0.9, 0.95).
Published: FID 2.16 of 50,000 images after 80 epochs, without guidance (README of bytetriper/RAE). Hardware and hours: not
measured. Never trained here. The published weights: vq convert rae_dit FILE.
"""

from vq.recipes import dit_dh

_export_ = dit_dh(_kwargs_)
