"""Class to image on ImageNet: a Llama of 24 layers over classes and tokens in one vocabulary, with guidance.

    auto_torchrun -m vq.train ar/vqgan_8192 configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py --config-options \\
        ir_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py ir_state_dict::work_dirs/vqgan/8192_dd2
    auto_torchrun -m vq.val   ar/vqgan_8192 configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py --config-options ...

260,000 steps of 96 images, as the vector quantization toolkit has it; hardware and hours: not measured, and nobody has run
this configuration here. Expected, quoted from its paper (NeurIPS 2024) for a VQ-KD (CLIP) tokenizer: FID 4.10; for a VQGAN in
the same setting 15.78. Where it differs from that toolkit: tokens are written once (centre crop and its mirror image) in
place of augmented in every step (``on_the_fly::True`` does that).

Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import class_to_image

_export_ = class_to_image(_kwargs_)
