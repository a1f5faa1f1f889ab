"""The representation autoencoder: latents are features of a network that understands images."""

from __future__ import annotations

from typing import ClassVar

from vq.interfaces import Decoder, Encoder, Perturbation
from vq.registries import VQModelRegistry
from vq.tokenizers.continuous import ContinuousAutoencoder


@VQModelRegistry.register_()
class RepresentationAutoencoder(ContinuousAutoencoder):
    """image x -> teacher f -> z = f(x) (B, C, h, w) -> decoder -> image.  In training the decoder sees z + s e,

        s uniform in (0, tau) for each image, e standard normal.

    (RAE, 2025.) ``encoder`` is a ``RepresentationEncoder``, frozen or trained. ``decoder`` is a ``MAEDecoder``, whose images
    are in the encoder's normalisation. ``perturbation`` is ``GaussianNoise``, as published with tau 0.8. Checkpoints leave a
    frozen teacher out.
    """

    wires: ClassVar[dict[str, str]] = {'decoder.in_channels': 'encoder.out_channels'}
    binds: ClassVar[dict[str, str]] = {
        'decoder.patch': 'encoder.downsampling',
        'decoder.pixel_mean': 'encoder.pixel_mean',
        'decoder.pixel_deviation': 'encoder.pixel_deviation',
        'perturbation.channels': 'encoder.out_channels',
    }

    def __init__(self, *, encoder: Encoder, decoder: Decoder, perturbation: Perturbation | None = None) -> None:
        super().__init__(encoder, decoder, perturbation)
