"""VQGAN with 1,024 codes and a regularized discriminator: non-saturating loss, R1 and LeCam, late start, warm-up, ramp.

    auto_torchrun -m vq.train vqgan/1024_r1_lecam_imagenet_ddp configs/vqgan/1024_r1_lecam_imagenet_ddp.py
    auto_torchrun -m vq.val   vqgan/1024_r1_lecam_imagenet_ddp configs/vqgan/1024_r1_lecam_imagenet_ddp.py

For training in which the discriminator wins. The discriminator trains for 1,000 steps with the adversarial term off; then the
term grows to its weight over 10,000 steps. Hardware and hours: not measured here. Expected figures: none are published for
this recipe (for 1,024 codes with R1 and the StyleGAN2 discriminator, the VQ-VAE/GAN study quotes rFID 20.95); this config was
never trained to its end.
"""

from vq.recipes import vqgan

discriminator = dict(type='PatchGAN', depth=3, norm='group')
losses = dict(generator_loss='NonSaturatingGeneratorLoss', discriminator_loss='VanillaDiscriminatorLoss')
penalties = dict(r1=dict(type='R1Penalty', weight=10.0, interval=16), lecam=dict(type='LeCamPenalty'))
phases = dict(discriminator_start=20_000, warmup=1000, ramp=10_000)
_export_ = vqgan(_kwargs_, codebook_size=1024, discriminator=discriminator, penalties=penalties, **losses, **phases)
