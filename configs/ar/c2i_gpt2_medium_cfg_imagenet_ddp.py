"""Class to image on ImageNet: GPT-2 medium of Hugging Face, from its language weights, over classes and tokens.

    auto_torchrun -m vq.train ar/gpt2 configs/ar/c2i_gpt2_medium_cfg_imagenet_ddp.py --config-options \\
        ir_config::configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py ir_state_dict::work_dirs/vqgan/8192_dd2

Weights: a clone of gpt2-medium in pretrained/huggingface/gpt2-medium (option ``network_weights``; None: from scratch); its
embeddings are resized. Hardware, hours and figures: not measured, nobody has run this configuration here, and none is quoted.

Options: those of interface.py. ``network::gpt2`` takes our own GPT-2, without the package transformers, from scratch.
"""

_kwargs_.setdefault('network', 'hf_gpt2')
_kwargs_.setdefault('network_weights', 'huggingface/gpt2-medium')
_kwargs_.setdefault('positions', 1024)

_base_ = ['c2i_llama_medium_cfg_imagenet_ddp.py']
