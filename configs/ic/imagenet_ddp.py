"""A linear probe of ImageNet's 1,000 classes on a frozen tokenizer: 30,000 steps of LARS, 512 images per rank.

    auto_torchrun -m vq.train ic/vqgan_8192 configs/ic/imagenet_ddp.py --config-options tokenizer_run::vqgan/8192_imagenet_ddp
    auto_torchrun -m vq.val   ic/vqgan_8192 configs/ic/imagenet_ddp.py --config-options tokenizer_run::vqgan/8192_imagenet_ddp

Any tokenizer can be used: see vq/recipes/frozen.py. Hardware and hours: not measured. Expected figures: none; this
configuration was never run here, and published probes pool other features or use another training recipe.
"""

from vq.recipes import linear_probe

_export_ = linear_probe(_kwargs_)
