"""CVQ-VAE (Zheng and Vedaldi 2023): VQGAN whose idle codes move to features of the batch, a little in every step.

    p_k <- d p_k + (1 - d) share of code k,   a_k = exp(-10 K p_k / (1 - d) - eps),   code_k <- (1 - a_k) code_k + a_k anchor_k

The reference toolkit meant a cosine distance here, and an option that its config dropped left it with L2; ours is cosine.
Its recipe is VQGAN's with 8,192 codes, a discriminator of depth 2 (dd2) and a gain of 0.75 (aglwg075). Codes move once per
step, from the features of all ranks; there, they moved in both passes of a step.

Options: ``distance`` (cosine; or l2), ``update`` (settings of the CVQUpdate, such as ``dict(decay=0.99)``), ``codebook``
(other settings of the VectorQuantizer), and those of vqgan/interface.py.
"""

_kwargs_.setdefault('num_embeddings', 8192)
_kwargs_.setdefault('discriminator', dict(type='PatchGAN', depth=2))
_kwargs_.setdefault('generator_weight', dict(type='AdaptiveWeight', gain=0.75))
_kwargs_.setdefault(
    'quantizer',
    dict(
        type='VectorQuantizer',
        distance=_kwargs_.get('distance', 'cosine'),
        update=dict(type='CVQUpdate', **_kwargs_.get('update', {})),
        **_kwargs_.get('codebook', {}),
    ),
)

_base_ = ['../vqgan/interface.py']

_export_ = {}
