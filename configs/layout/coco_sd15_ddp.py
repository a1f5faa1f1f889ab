"""COCO by boxes and captions, from Stable Diffusion 1.5, whose weights stay as they are: only region attention trains.

    python -m vq.tools.prepare_checkpoints sd15-text sd15-unet
    vq convert ldm_unet pretrained/sd15/unet --output sd15_unet.safetensors
    vq convert diffusers_kl pretrained/sd15/vae --output sd15_kl.safetensors
    auto_torchrun -m vq.train coco_sd15 configs/layout/coco_sd15_ddp.py tokenizer_run=sd15_kl.safetensors \
        --load-model-from sd15_unet.safetensors
    auto_torchrun -m vq.sample coco_sd15 --layout layout.json --text 'a dog on a beach' --negative-text 'blurred'

512 pixels, latents of 64 x 64 cells, region attention at the second and third level, no learned entries behind the texts of
CLIP. Sizes, rate, 256 images a step, 1,000 epochs (here of 118,287 images) and 20 steps of PLMS are those of LayoutDiffuse.
``trains=all`` trains the published weights, too.

Hardware and hours: 8 GPUs there, hours unknown. Never trained here, so nothing can be said about what to expect.

Options: those of coco_ldm_ddp.py.
"""

from vq.recipes import layout_diffusion

_data = dict(dataset='coco_stuff', augmentation='layout', image_size=512)
_network = dict(text='clip', prompts=0, image_tokens=False, adapters_at=(2, 4), trains='adapters')
_drawn = dict(sampler='PLMS', steps=20, guidance=7.5)
_export_ = layout_diffusion(_kwargs_, lr=1e-4, iters=462_000, **_data, **_network, **_drawn)
