"""VQ on digits whose decoder learns from tokens that are swapped, as in RobusTok (Qiu et al. 2025).

    auto_torchrun -m vq.train digits_vq_swaps configs/digits/vq_swaps.py

In a tenth of the images tokens are replaced by one of the 10 nearest codes: all at first, half of them at the end. Such a
decoder forgives wrong tokens of a generator. Figures and hours: not measured.

Options: those of vq_ema.py.
"""

from vq.recipes import EMA, digits_tokenizer

falling = dict(type='CosineSchedule', final=0.5)
share = dict(type='AnnealCallback', setting='tokenizer.perturbation.share', value=1.0, schedule=falling)
_export_ = digits_tokenizer(
    _kwargs_,
    quantizer=dict(type='VectorQuantizer', update=EMA),
    perturbation=dict(type='TokenSwap', images=0.1, nearest=10),
    callbacks=dict(share=share),
)
