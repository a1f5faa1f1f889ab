"""MAR-B on ImageNet at 256 pixels, on the latents of KL-16: 16 x 16 tokens of 16 numbers, 208 M parameters.

    auto_torchrun -m vq.train two_stage/klvae_f16_imagenet_ddp configs/two_stage/klvae_f16_imagenet_ddp.py
    python -m vq.tools.latents two_stage/klvae_f16_imagenet_ddp --load-model-from two_stage/klvae_f16_imagenet_ddp
    auto_torchrun -m vq.train mar/base_imagenet_ddp configs/mar/base_imagenet_ddp.py --config-options \\
        tokenizer_run::work_dirs/two_stage/klvae_f16_imagenet_ddp_latents/tokenizer.safetensors
    auto_torchrun -m vq.sample mar/base_imagenet_ddp --num-samples 50000 --num-iter 256 --steps 100 --guidance 2.9 \\
        --cfg-schedule linear --temperature 1.0

In place of the first two commands, ``prepare_checkpoints.py kl16`` gives the published tokenizer. Hyperparameters of MAR (Li
et al. 2024): 2,048 images a step, AdamW 8e-4 with betas (0.9, 0.95) and weight decay 0.02, a warm-up of 100 epochs, gradients
clipped at 3, EMA 0.9999, 400 epochs (the published weights have 800: ``iters:500800``), a head of 6 blocks of 1024 channels.
Published, from its README: FID 2.31 and Inception Score 281.7 with guidance 2.9, of 50,000 images. Hardware: MAR-L took 31
hours on 32 H100 for 400 epochs, quoted from there; nothing was measured here. Never trained here. The published weights:
``prepare_checkpoints.py mar-base``.
"""

from vq.recipes import mar

_export_ = mar(_kwargs_, size='B', head_depth=6, head_width=1024, num_iter=256, guidance=2.9)
