"""VQ-KD: codes from which a shallow decoder predicts the features of a frozen model that understands images."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vq.core.bindings import Source
from vq.core.errors import UserError
from vq.interfaces import Connector, Encoder, FeatureDecoder, Perturbation, Quantizer
from vq.registries import VQModelRegistry
from vq.tokenizers.encoding import EncodingTokenizer
from vq.tokenizers.width_check import check_join


@VQModelRegistry.register_()
class VQKD(EncodingTokenizer):
    """image x -> encoder -> post_encode -> quantizer -> z, tokens (B, h, w);  z -> pre_decode -> feature_decoder -> features.

    (Peng et al. 2022, BEiT v2.) ``feature_decoder`` predicts the patch map of a teacher, only in training: tokens do not
    depend on it, and it can be left out of a trained tokenizer. It makes no pixels: a pixel decoder is trained afterwards, see
    ``TokenizerWithDecoder``. Widths follow from the neighbours, as in ``VQGAN``.
    """

    can_decode = False
    training_only = ('feature_decoder', 'pre_decode', 'perturbation')
    wires: ClassVar[dict[str, str]] = {
        'post_encode.in_channels': 'encoder.out_channels',
        'post_encode.out_channels': 'quantizer.feature_dim',
        'feature_decoder.in_channels': 'quantizer.embedding_dim',
        'pre_decode.in_channels': 'quantizer.embedding_dim',
        'pre_decode.out_channels': 'feature_decoder.in_channels',
    }
    binds: ClassVar[dict[str, Source]] = {'perturbation.channels': 'quantizer.embedding_dim'}

    def __init__(
        self,
        *,
        encoder: Encoder,
        quantizer: Quantizer,
        post_encode: Connector | None = None,
        feature_decoder: FeatureDecoder | None = None,
        pre_decode: Connector | None = None,
        perturbation: Perturbation | None = None,
    ) -> None:
        super().__init__(encoder, quantizer, post_encode)
        self.pre_decode = pre_decode
        self.feature_decoder = feature_decoder
        self.set_perturbation(perturbation, quantizer.embedding_dim, quantizer)
        if feature_decoder is not None:
            channels = quantizer.embedding_dim
            check_join('quantizer', channels, 'pre_decode', pre_decode, 'feature_decoder', feature_decoder.in_channels)

    def predict(self, z: Tensor) -> Tensor:
        """Code vectors (B, C, h, w) -> the prediction of the teacher's patch map (B, out_channels, h, w)."""
        if self.feature_decoder is None:
            raise UserError(
                'this VQKD has no feature_decoder, so it predicts no features',
                "Give it one: feature_decoder=dict(type='ViTFeatureDecoder', out_channels=...).",
            )
        features: Tensor = self.feature_decoder(z if self.pre_decode is None else self.pre_decode(z))
        return features
