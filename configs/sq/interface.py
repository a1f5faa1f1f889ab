"""Scalar quantization in VQGAN's autoencoder: every channel is rounded to one of a few levels, and nothing is learned there.

    image x -> encoder -> 256 -> 256 -> d channels -> rounded -> d -> 256 -> 256 -> decoder -> x'
    tokenizer:      |x - x'| + LPIPS(x, x') - weight * E D(x'), without a codebook loss
    discriminator:  (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2

The arrows between numbers are 1x1 convolutions without activations. d is how many levels there are; the codes are all their
combinations, and none can die.

Options: ``levels`` (needed: the number of levels of each channel), ``bound`` (inner; see FiniteScalarQuantizer), ``widths``
((256,): channels between the 1x1 convolutions), and those of vqgan/interface.py but for ``num_embeddings``, ``embedding_dim``
and ``quantizer``, which follow. Defaults are VQGAN's: a PatchGAN of depth 3, an adaptive weight of gain 0.8, 96 images.
"""

import math

levels = [int(level) for level in _kwargs_['levels']]
_kwargs_.setdefault('num_embeddings', math.prod(levels))

_base_ = ['../vqgan/interface.py']

chain = dict(_delete_=True, type='ChainConnector', widths=tuple(_kwargs_.get('widths', (256,))))

_export_ = dict(
    trainer=dict(
        model=dict(
            tokenizer=dict(
                post_encode=chain,
                quantizer=dict(
                    _delete_=True, type='FiniteScalarQuantizer', levels=levels, bound=_kwargs_.get('bound', 'inner')
                ),
                pre_decode=chain,
            ),
        ),
    ),
    tiny=dict(
        trainer=dict(
            model=dict(
                tokenizer=dict(
                    post_encode=dict(widths=(16,)),
                    quantizer=dict(_delete_=True, levels=[4, 4, 4]),
                    pre_decode=dict(widths=(16,)),
                ),
            ),
        ),
    ),
)
