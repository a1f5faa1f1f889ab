"""DINOv2 as a network of features, for FD-DINOv2: ViT-L/14 at 224 pixels. For metrics of features.

    python tools/prepare_checkpoints.py dinov2-l

Options: ``small`` (False: a network for tests, without weights).
"""

_export_ = dict(
    type='DINOv2',
    **(dict(dimension=32, depth=2, heads=4, image_size=28) if _kwargs_.get('small') else {}),
)
