"""COCO by boxes and captions, from the text-to-image model of latent diffusion: all of it trains, with region attention.

    python -m vq.tools.prepare_checkpoints ldm-text2img bert-vocabulary
    vq convert ldm_unet pretrained/ldm/txt2img-f8-large.ckpt --output ldm_unet.safetensors
    vq convert ldm_autoencoder pretrained/ldm/txt2img-f8-large.ckpt --output ldm_kl.safetensors
    auto_torchrun -m vq.train coco_ldm configs/layout/coco_ldm_ddp.py tokenizer_run=ldm_kl.safetensors \
        --load-model-from ldm_unet.safetensors
    auto_torchrun -m vq.sample coco_ldm --layout layout.json --text 'a dog on a beach' --guidance 5

256 pixels, 182 classes, one of the captions of an image. Sizes, rate, 256 images a step, 1,000 epochs (here of 118,287 images)
and 20 steps of PLMS are those of LayoutDiffuse, which drops neither texts nor layouts, so that its guidance leads away from
what it never learned; here a tenth of the rows have neither.

Hardware and hours: 8 GPUs there, hours unknown. Never trained here, so nothing can be said about what to expect.

Options: ``captions``, ``drop``, ``text_drop``, ``layout_drop``, and those of coco_no_text_ddp.py.
"""

from vq.recipes import layout_diffusion

_data = dict(dataset='coco_stuff', augmentation='layout')
_export_ = layout_diffusion(_kwargs_, text='bert', lr=3e-5, iters=462_000, sampler='PLMS', steps=20, guidance=5.0, **_data)
