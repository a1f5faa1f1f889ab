"""LlamaGen's image tokenizer (Sun et al. 2024): VQGAN with few, unit-length numbers a code, so that codes stay in use.

    codes and features of unit length;  MSE + LPIPS + 0.5 * adversarial from step 20,000 on;  Adam 1e-4, (0.9, 0.95)

Options: those of vqgan/interface.py, with these defaults: ``num_embeddings`` (16384), ``embedding_dim`` (8), ``batch_size``
(128 in total), ``iters`` (400,000). The entropy term that LlamaGen's code has at weight 0 is left out.
"""

_kwargs_.setdefault('num_embeddings', 16384)
_kwargs_.setdefault('embedding_dim', 8)
_kwargs_.setdefault('quantizer', dict(type='VectorQuantizer', normalize=True))
_kwargs_.setdefault('losses', dict(l2=dict(type='MSELoss'), lpips=dict(type='LPIPSLoss')))
_kwargs_.setdefault('generator_weight', dict(type='FixedWeight', value=0.5))
_kwargs_.setdefault('discriminator_weight', 0.5)
_kwargs_.setdefault('discriminator_start', 20_000)
_kwargs_.setdefault('lr', 1e-4)
_kwargs_.setdefault('discriminator_lr', 1e-4)
_kwargs_.setdefault('betas', (0.9, 0.95))
_kwargs_.setdefault('batch_size', 128)
_kwargs_.setdefault('iters', 400_000)

_base_ = ['../vqgan/interface.py']
