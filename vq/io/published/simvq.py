"""SimVQ's image tokenizers: frozen codes behind one linear layer, in Open-MAGVIT2's autoencoder."""

from __future__ import annotations

from vq.io.published.autoencoder import assemble, get
from vq.io.published.keymap import Converted, Rule, State, map_keys, rename
from vq.io.published.open_magvit2 import AUTOENCODER, DECODER, ENCODER, averaged, vocabulary

NESTS = ('state_dict',)

RULES: tuple[Rule, ...] = (
    *AUTOENCODER,
    rename('quantize.embedding.weight', 'quantizer.frozen.weight'),
    rename('quantize.embedding_proj.{leaf}', 'quantizer.projection.{leaf}'),
)


def convert(state: State, *, image_size: int = 128, ema: bool = True, commitment_weight: float = 0.25) -> Converted:
    """``ema``: use the moving average of the weights if the file has one, as their evaluation does."""
    mapped, dropped = map_keys(averaged(state) if ema else state, RULES, vocabulary(state))
    frozen, weight = get(mapped, 'quantizer.frozen.weight'), get(mapped, 'quantizer.projection.weight')
    quantizer = {
        'type': 'SimVectorQuantizer',
        'codebook_size': int(frozen.shape[0]),
        'embedding_dim': int(weight.shape[0]),
        'frozen_dim': int(frozen.shape[1]),
        'bias': 'quantizer.projection.bias' in mapped,
        'commitment_weight': commitment_weight,
    }
    return assemble(mapped, quantizer, image_size, dropped, encoder=ENCODER, decoder=DECODER)
