"""The VQ autoencoder of imagenet.py on a folder of your own images: ``ROOT/train/...``, ``ROOT/validation/...``, any depth.

    auto_torchrun -m vq.train mine configs/vq/folder.py --config-options data_root::ROOT bad_images::skip

Hardware and hours: not measured. Options: ``vq.config FILE --options`` prints them.
"""

from vq.recipes import autoencoder

_export_ = autoencoder(_kwargs_, dataset='folder')
