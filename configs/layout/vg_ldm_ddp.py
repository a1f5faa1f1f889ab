"""Visual Genome by boxes and the names of their classes: coco_ldm_ddp.py on other data, with a smaller rate.

    auto_torchrun -m vq.train vg_ldm configs/layout/vg_ldm_ddp.py tokenizer_run=ldm_kl.safetensors \
        --load-model-from ldm_unet.safetensors

256 pixels, up to 10 boxes of 178 classes, 2e-6, 150 epochs (here of 62,565 images), 100 steps of PLMS. The two files are those
of coco_ldm_ddp.py, and the data those of docs/datasets.md.

Hardware and hours: 8 GPUs there, hours unknown. Never trained here, so nothing can be said about what to expect.

Options: those of coco_ldm_ddp.py.
"""

from vq.recipes import layout_diffusion

_data = dict(dataset='visual_genome', labels=179, augmentation='layout')
_export_ = layout_diffusion(_kwargs_, text='bert', lr=2e-6, iters=36_600, sampler='PLMS', steps=100, guidance=5.0, **_data)
