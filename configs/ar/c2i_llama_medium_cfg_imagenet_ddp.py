"""Class to image on ImageNet: a Llama of 24 layers over one joint vocabulary of classes and tokens, with guidance.

    auto_torchrun -m vq.train ar/vqgan_8192 configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py --config-options \\
        ir_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py ir_state_dict::work_dirs/vqgan/8192_dd2
    auto_torchrun -m vq.val   ar/vqgan_8192 configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py --config-options ...

260,000 steps of 96 images, as in the vector quantization toolkit. Hardware and hours: not measured; this configuration was
never run here. Expected, quoted from the toolkit's paper (NeurIPS 2024): FID 4.10 with a VQ-KD (CLIP) tokenizer, 15.78 with a
VQGAN in the same setting. The toolkit augments and tokenizes images in every step (``on_the_fly::True`` does that); here the
tokens of a centre crop and of its mirror image are written once.

Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import class_to_image

_export_ = class_to_image(_kwargs_)
