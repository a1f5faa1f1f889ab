"""Energy diffusion on ImageNet at 256 pixels with DiT-XL/1, 675 million parameters, on 16 x 16 latents of KL-16.

    python tools/prepare_checkpoints.py mar-kl-16
    auto_torchrun -m vq.train energy/xlarge_energy_imagenet_ddp configs/energy/xlarge_energy_imagenet_ddp.py \\
        --config-options tokenizer_run::pretrained/mar/kl16.ckpt.converted

The energy is of the mean of the tokens after the last block. Each of 250 ancestral steps is followed by 5 to 10 steps of the
inner loop.

Hyperparameters of the command in the README of mar_ebwm: 500 linear betas, epsilon, 20 epochs of 256 images, AdamW with a
constant learning rate of 9e-6 after an epoch of warm-up, betas 0.9 and 0.95, weight decay 0.02, gradients clipped at 3, EMA
0.9999, labels dropped in a tenth. Its table has no FID, and its weights are not published: none to expect. Hardware and hours:
not measured. Never trained here. Its checkpoints: vq convert mar_energy FILE.
"""

from vq.recipes import energy_diffusion

_export_ = energy_diffusion(_kwargs_, size='XL', step_size=0.001, inner_loop=True)
