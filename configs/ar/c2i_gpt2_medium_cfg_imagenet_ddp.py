"""Class to image on ImageNet: Hugging Face's GPT-2 medium over classes and tokens, initialized with its language weights.

    auto_torchrun -m vq.train ar/gpt2 configs/ar/c2i_gpt2_medium_cfg_imagenet_ddp.py --config-options \\
        ir_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py ir_state_dict::work_dirs/vqgan/8192_dd2

Weights: python -m vq.tools.prepare_checkpoints huggingface (option ``network_weights``; None: from scratch). The embeddings
are resized. Hardware, hours and figures: not measured, not quoted; this configuration was never run here.

Options: ``vq.config FILE --options`` prints them. ``network::gpt2`` trains our own GPT-2 from scratch, without the package
transformers.
"""

from vq.recipes import class_to_image

_export_ = class_to_image(_kwargs_, network='hf_gpt2', network_weights='huggingface/gpt2-medium', positions=1024)
