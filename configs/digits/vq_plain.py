"""The plain VQ of van den Oord et al. (2017): codes learn by gradient alone. Most of them die; that is what it shows.

    auto_torchrun -m vq.train digits_plain configs/digits/vq_plain.py

Options: those of interface.py.
"""

_kwargs_.setdefault('quantizer', dict(type='VectorQuantizer', codebook_size=256, embedding_dim=16))

_base_ = ['interface.py']

_export_ = dict(
    trainer=dict(
        model=dict(losses=dict(l2=None, l1=dict(type='L1Loss'))),
        optimizers=dict(tokenizer=dict(_delete_=True, type='Adam', lr=_kwargs_.get('lr', 2e-3), betas=(0.5, 0.9))),
    ),
)
