"""COCO by boxes alone: latent diffusion with region attention, and no texts.

    vq convert diffusers_kl sd-vae-ft-ema
    auto_torchrun -m vq.train coco_no_text configs/layout/coco_no_text_ddp.py tokenizer_run=sd-vae-ft-ema.converted
    auto_torchrun -m vq.sample coco_no_text --layout layout.json --guidance 5

Photographs of COCO 2017 with 3 to 100 boxes of 182 classes (docs/datasets.md), at 256 pixels, on the latents of a KL
autoencoder of 8 x 8 pixels per cell. Sizes, rate, 256 images a step and 100 steps of PLMS are those of LayoutDiffuse; it
trains for 60 epochs, here of 118,287 images. Transformers attend to 64 learned entries and to the cells. LayoutDiffuse drops
no layout, so that its guidance leads away from what it never learned; here a tenth of the rows have none.

Hardware and hours: 8 GPUs there, hours unknown. Never trained here, so nothing can be said about what to expect.

Options: ``variant`` (of ``RegionAttention``), ``layout_drop``, ``trains``, and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import layout_diffusion

_data = dict(dataset='coco_stuff', augmentation='layout')
_export_ = layout_diffusion(_kwargs_, lr=3e-5, iters=60 * 462, sampler='PLMS', steps=100, guidance=5.0, **_data)
