"""A linear probe of ImageNet's 1,000 classes on a frozen tokenizer: 30,000 steps of LARS, 512 images a rank.

    auto_torchrun -m vq.train ic/vqgan_8192 configs/ic/imagenet_ddp.py --config-options tokenizer_run::vqgan/8192_imagenet_ddp
    auto_torchrun -m vq.val   ic/vqgan_8192 configs/ic/imagenet_ddp.py --config-options tokenizer_run::vqgan/8192_imagenet_ddp

Any tokenizer will do: see vq/recipes/frozen.py. Hardware and hours: not measured. Expected figures: none; nobody has run this
configuration here, and probes that are published average other features or learn otherwise.
"""

from vq.recipes import linear_probe

_export_ = linear_probe(_kwargs_)
