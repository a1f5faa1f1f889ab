"""LlamaGen (Sun et al. 2024): class to image, a Llama on a grid of 16 x 16 tokens of its tokenizer.

    auto_torchrun -m vq.train gpt/B configs/llamagen/gpt_imagenet_ddp.py --config-options size::B tokenizer_run::llamagen-vq-16
    auto_torchrun -m vq.sample gpt/B configs/llamagen/gpt_imagenet_ddp.py --config-options size::B \\
        tokenizer_run::llamagen-vq-16 --load-model-from work_dirs/gpt/B --num-samples 50000 --guidance 2 --format npz

Sizes (option ``size``): B 111M, L 343M, XL 775M, XXL 1.4B, 3B 3.1B. 250,000 steps of 256 images. Hours, quoted from LlamaGen's
issue 8: 24, 48, 72, 96 and 120 on 8, 8, 16, 32 and 32 A100 with 80 GB. Expected, quoted from its readme: FID 5.46 (B, 256
pixels), 3.07 (L), 2.62 (XL), 2.34 (XXL), 2.18 (3B), the last four with images of 384 pixels. Not run here. Published files of
B, L and XL load through vq.tools.convert_checkpoints llamagen_gpt. Those of XXL and 3B should load too, but were not tried: no
list of their keys was available. LlamaGen trains on ten crops of each image: vq.tools.llamagen writes them.

Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import token_generator

guidance = dict(type='ConstantGuidance', scale=2.0)
_export_ = token_generator(_kwargs_, it_config='configs/llamagen/vqgan_imagenet_ddp.py', size='B', guidance=guidance)
