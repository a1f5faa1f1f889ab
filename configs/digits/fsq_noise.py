"""FSQ on digits, trained with noise in place of rounding in half of the images (perturbation in place of quantization, FSP).

    auto_torchrun -m vq.train digits_fsq_noise configs/digits/fsq_noise.py

Noise is uniform over one level, so that the encoder gets true gradients there; evaluation rounds. Figures and hours: not
measured.

Options: those of fsq.py.
"""

from vq.recipes import digits_tokenizer

quantizer = dict(type='FiniteScalarQuantizer', levels=[8, 8, 4])
_export_ = digits_tokenizer(_kwargs_, quantizer=quantizer, perturbation=dict(type='BoundedNoise', share=0.5))
