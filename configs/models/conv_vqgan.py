"""VQGAN's autoencoder as a tokenizer. Loaded by the families that train it.

Options: ``num_embeddings`` (8192), ``embedding_dim`` (256), ``quantizer`` (a dict in place of the plain VectorQuantizer; None
for each setting that follows from the two), ``width`` (128), ``multipliers`` ((1, 1, 2, 2, 4): 16 pixels a token; (1, 1, 2,
4): 8), ``refine`` (True: blocks with attention at the lowest resolution, on both sides).
"""

codes, dim = _kwargs_.get('num_embeddings', 8192), _kwargs_.get('embedding_dim', 256)
multipliers = tuple(_kwargs_.get('multipliers', (1, 1, 2, 2, 4)))
shape = dict(
    width=_kwargs_.get('width', 128),
    multipliers=multipliers,
    attention_levels=(len(multipliers) - 1,),
    refine=_kwargs_.get('refine', True),
)
quantizer = dict(_kwargs_.get('quantizer') or dict(type='VectorQuantizer'))

_export_ = dict(
    type='VQGAN',
    encoder=dict(type='ConvEncoder', residual_blocks=2, out_channels=256, **shape),
    post_encode=dict(type='ConvConnector'),
    quantizer=dict(quantizer, codebook_size=codes, embedding_dim=dim),
    pre_decode=dict(type='ConvConnector'),
    decoder=dict(type='ConvDecoder', residual_blocks=3, **shape),
)
