"""COCO by boxes and captions, from Stable Diffusion 2.1 (base): coco_sd15_ddp.py with OpenCLIP's texts, 64 channels a head.

    python -m vq.tools.prepare_checkpoints sd21-text sd21-unet
    vq convert ldm_unet pretrained/sd21/unet --output sd21_unet.safetensors
    vq convert diffusers_kl pretrained/sd21/vae --output sd21_kl.safetensors
    auto_torchrun -m vq.train coco_sd21 configs/layout/coco_sd21_ddp.py tokenizer_run=sd21_kl.safetensors \
        --load-model-from sd21_unet.safetensors

512 pixels, a rate of 3e-5. The model of 768 pixels estimates v: ``prediction=v image_size=768``. Its published weights stay as
they are; ``trains=all`` trains them, too.

Hardware and hours: 8 GPUs there, hours unknown. Never trained here, so nothing can be said about what to expect.

Options: those of coco_ldm_ddp.py.
"""

from vq.recipes import layout_diffusion

_data = dict(dataset='coco_stuff', augmentation='layout', image_size=512)
_network = dict(text='openclip', head_dim=64, prompts=0, image_tokens=False, adapters_at=(2, 4), trains='adapters')
_drawn = dict(sampler='PLMS', steps=20, guidance=5.0)
_export_ = layout_diffusion(_kwargs_, lr=3e-5, iters=462_000, **_data, **_network, **_drawn)
