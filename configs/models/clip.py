"""CLIP's image encoder as a network of features, for CMMD: ViT-L/14 at 336 pixels. For metrics of features.

    python tools/prepare_checkpoints.py clip-l-336

Options: ``small`` (False: a network for tests, without weights).
"""

_export_ = dict(
    type='CLIPImages',
    **(dict(dimension=16, width=32, depth=2, heads=4, image_size=28) if _kwargs_.get('small') else {}),
)
