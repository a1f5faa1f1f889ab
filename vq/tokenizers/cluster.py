"""Cluster: the features of a frozen model that understands images, each replaced by the nearest of K codes."""

from __future__ import annotations

from vq.core.errors import ConfigError
from vq.interfaces import Encoder, Quantizer
from vq.registries import VQModelRegistry
from vq.tokenizers.encoding import EncodingTokenizer


@VQModelRegistry.register_()
class Cluster(EncodingTokenizer):
    """image x -> frozen encoder f -> token k = argmin_k d(f(x), c_k), cell by cell; only the codes c are trained.

    (Wang et al. 2024, Image Understanding Makes for A Good Tokenizer for Image Generation.) With the loss of the codebook,
    mse(c_k, f(x)), the codes are the centres of an online k-means in the feature space of the encoder, such as a
    ``TeacherEncoder``. There is no decoder: a pixel decoder is trained afterwards, see ``TokenizerWithDecoder``.
    """

    can_decode = False

    def __init__(self, *, encoder: Encoder, quantizer: Quantizer) -> None:
        super().__init__(encoder, quantizer)
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            raise ConfigError(
                f'the encoder of a Cluster is frozen, and {type(encoder).__name__} is trained',
                "Take a TeacherEncoder, or a FrozenTokenizer with gives='features'; VQKD and VQGAN train their encoders.",
            )
