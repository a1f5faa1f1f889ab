"""MAGE (Li et al. 2023) on ImageNet, with classes: an encoder that reads half of the tokens, and a decoder that fills them in.

    auto_torchrun -m vq.train mage configs/mage/imagenet_ddp.py --config-options tokenizer_run::vqgan/1024_imagenet_ddp
    auto_torchrun -m vq.sample mage configs/mage/imagenet_ddp.py --config-options \\
        tokenizer_run::vqgan/1024_imagenet_ddp --load-model-from work_dirs/mage --num-samples 50000

The paper's ViT-B: 12 layers of the encoder, 8 of the decoder, 768 wide; 1600 epochs of 4096 images, 40 of them warmup. The
authors name 64 V100 GPUs. Hours: not measured. Expected, quoted from the authors' page for images without classes at 256
pixels, with their tokenizer: FID 11.1, Inception Score 81.2, drawn with ``steps:20 choice_temperature:6``. The paper's
contrastive loss is left out, as in these figures. This configuration was never run here.

Differences from the authors: the class is an input (``num_classes:0 guidance:None``: it is not), tokens are those of center
crops and their mirror images (``on_the_fly:True augmentation::strong``: of random crops), gradients are clipped at 1, not 3.

Options: those that ``vq.config FILE --options`` prints, and ``steps`` (12), ``order`` (confidence; halton),
``choice_temperature`` (4.5), ``dim`` (768), ``depth`` (12), ``heads`` (12), ``decoder_depth`` (8), ``decoder_heads`` (16),
``mask_min`` (0.5), ``mask_mean`` (0.55), ``mask_std`` (0.25).
"""

from vq.recipes import token_generator

network = dict(method='mage', dim=768, depth=12, heads=12, decoder_depth=8, decoder_heads=16)
training = dict(batch_size=4096, iters=500_000, lr=2.4e-3, schedule=dict(type='CosineSchedule', warmup=12_500))
drawing = dict(label_smoothing=0.1, guidance=dict(type='LinearGuidance', scale=3.0))
_export_ = token_generator(_kwargs_, it_config='configs/vqgan/1024_imagenet_ddp.py', **network, **training, **drawing)
