"""The VQ autoencoder of folder.py on images in their own shapes: aspect-ratio buckets of about 256 x 256 pixels.

    auto_torchrun -m vq.train mine configs/vq/folder_buckets.py --config-options data_root::ROOT bad_images::skip

Each step has images of one size: see docs/data.md. Validation is on squares of 256 pixels. Hardware and hours: not measured.
"""

from vq.recipes import autoencoder

_export_ = autoencoder(_kwargs_, dataset='folder', aspect_buckets=256)
