"""A linear probe of ImageNet's 1,000 classes on the patches of DINOv2 ViT-L/14 at 224 pixels, frozen: 30,000 steps of LARS.

    python tools/prepare_checkpoints.py dinov2-l
    auto_torchrun -m vq.train ic/dinov2 configs/ic/dinov2_imagenet_ddp.py

The mean of the patch vectors is probed, not the pooled vector. Needs pip install 'vq[features]'. Hardware and hours: not
measured. Expected figures: none; this configuration was never run here, and the authors' probes use other features.
"""

from vq.recipes import teacher_probe

_export_ = teacher_probe(_kwargs_, teacher='dinov2')
