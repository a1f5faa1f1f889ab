"""Faces by maps of 19 parts, from latent diffusion's model of CelebA-HQ: a UNet without texts, with attention by labels.

    python -m vq.tools.prepare_checkpoints ldm-celeba
    unzip -p pretrained/ldm/celeba.zip model.ckpt > pretrained/ldm/celeba.ckpt
    vq convert ldm_unet pretrained/ldm/celeba.ckpt --options head_dim=32 --output celeba_unet.safetensors
    vq convert ldm_autoencoder pretrained/ldm/celeba.ckpt --output celeba_vq.safetensors
    auto_torchrun -m vq.train celebamask configs/layout/celebamask_ddp.py tokenizer_run=celeba_vq.safetensors \
        --load-model-from celeba_unet.safetensors
    auto_torchrun -m vq.val celebamask

256 pixels, the features before the quantizer of a VQGAN of 4 x 4 pixels per token, a mirror that exchanges the labels of left
and right. Sizes, betas, rate, 256 images a step, 200 epochs (here of 24,183 images) and 100 steps of PLMS without guidance are
those of LayoutDiffuse. A tenth of the maps is dropped, so that ``guidance`` can be set.

Hardware and hours: 4 GPUs there, hours unknown. Never trained here, so nothing can be said about what to expect.

Options: ``layout_drop``, ``trains``, and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import layout_diffusion

_first = dict(it_config='configs/vqgan/f4_8192_imagenet_ddp.py', gives='features', sample_posterior=False)
_data = dict(dataset='celeba_mask', augmentation='weak', labels=19, variant='segmentation')
_network = dict(width=224, multipliers=(1, 2, 3, 4), attention_at=(2, 4, 8), adapters_at=(2, 4), head_dim=32)
_path = dict(noise_start=0.0015, noise_end=0.0195, sampler='PLMS', steps=100, guidance=1.0, attends_to_texts=False)
_export_ = layout_diffusion(_kwargs_, lr=5e-5, iters=18_800, **_first, **_data, **_network, **_path)
