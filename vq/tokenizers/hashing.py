"""Hash of the weights that determine the tokens; token files record it to name their tokenizer."""

from __future__ import annotations

from vq.interfaces import Tokenizer
from vq.io.weights import state_hash
from vq.tokenizers.with_decoder import TokenizerWithDecoder

DECODING = ('decoder.', 'feature_decoder.', 'pre_decode.', 'perturbation.', 'statistics.')


def tokens_hash(tokenizer: Tokenizer) -> str:
    """A short hash of the weights that determine tokens and latents. It leaves out the decoder, and the statistics of latents,
    which are computed later."""
    if isinstance(tokenizer, TokenizerWithDecoder):
        return tokens_hash(tokenizer.frozen.tokenizer)
    return state_hash(tokenizer, without=DECODING)
