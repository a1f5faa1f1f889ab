"""A continuous autoencoder: every cell is a Gaussian of 8 channels, there are no codes. What diffusion models learn from.

    auto_torchrun -m vq.train digits_kl configs/digits/kl.py

700 steps took 295 seconds on one of 2 CPU cores that many other programs shared (load 10), 85 seconds of CPU time. Measured on
the 180 validation digits, one seed: 37.1 dB PSNR from the means, which nothing rounds; 436 nats of divergence an image in
training. Not tuned.

Options: ``latent_channels`` (8), ``kl_weight`` (1e-6), and those of interface.py.
"""

_kwargs_.setdefault('quantizer', None)

_base_ = ['interface.py']

channels = _kwargs_.get('latent_channels', 8)

_export_ = dict(
    trainer=dict(
        model=dict(
            tokenizer=dict(
                type='KLAutoencoder',
                kl_weight=_kwargs_.get('kl_weight', 1e-6),
                post_encode=dict(out_channels=2 * channels),
                pre_decode=dict(in_channels=channels),
                decoder=dict(in_channels=64),
            ),
        ),
    ),
    validator=dict(metrics=dict(codebook=None, window=None)),
)
