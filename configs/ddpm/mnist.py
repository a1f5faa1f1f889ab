"""MNIST by denoising diffusion (DDPM, Ho et al. 2020): a UNet on pixels that estimates the noise, without classes.

    auto_torchrun -m vq.train mnist configs/ddpm/mnist.py
    auto_torchrun -m vq.sample mnist --sampler DDIM --steps 50

Data: the idx files of MNIST, or of Fashion-MNIST and others, in data/mnist (docs/datasets.md); pictures of 28 x 28 pixels are
enlarged to 32. A dry run (``DRY_RUN=True``) trains a small network on the digits of scikit-learn and needs no file. With
``num_classes:10`` the network learns classes, and can be guided.

Hardware and hours: not measured. Never trained here, so nothing can be said about what to expect; the paper has no figures of
MNIST.

Options: ``res_block_type`` and ``attn_block_type`` (names of blocks, also of your own: vq/interfaces/unet.py), ``width``,
``multipliers``, ``res_blocks``, ``attention_at``, and those that ``vq.config FILE --options`` prints.
"""

from vq.recipes import ddpm

_export_ = ddpm(_kwargs_)
