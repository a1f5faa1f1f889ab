"""MaskGIT (Chang et al. 2022) on ImageNet: a bidirectional transformer that predicts masked tokens. Images take 12 steps.

    auto_torchrun -m vq.train maskgit configs/maskgit/imagenet_ddp.py --config-options \\
        tokenizer_run::vqgan/1024_imagenet_ddp
    auto_torchrun -m vq.sample maskgit configs/maskgit/imagenet_ddp.py --config-options \\
        tokenizer_run::vqgan/1024_imagenet_ddp --load-model-from work_dirs/maskgit --num-samples 50000

24 layers, 768 wide, 300 epochs of 256 images. Hardware and hours: not measured. Expected, quoted from the paper: FID 6.18 at
256 pixels, without guidance, with the authors' tokenizer. This configuration was never run here.

Options: those that ``vq.config FILE --options`` prints, and ``mask_ratio`` (cosine; mage), ``steps`` (12), ``order``
(confidence; halton), ``choice_temperature`` (4.5), ``dim`` (768), ``depth`` (24), ``heads`` (16).
"""

from vq.recipes import token_generator

network = dict(method='masked', dim=768, depth=24, heads=16)
training = dict(iters=1_500_000, label_smoothing=0.1, betas=(0.9, 0.96), weight_decay=0.045)
guidance = dict(type='LinearGuidance', scale=3.0)
_export_ = token_generator(_kwargs_, it_config='configs/vqgan/1024_imagenet_ddp.py', **network, **training, guidance=guidance)
