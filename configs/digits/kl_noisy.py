"""A continuous autoencoder of digits whose decoder learns from masked and noisy latents, as in l-DeTok (Yang et al. 2025).

    auto_torchrun -m vq.train digits_kl_noisy configs/digits/kl_noisy.py

Up to 0.7 of the cells are replaced by a learned vector, and latents are mixed with Gaussian noise of deviation 3. Such a
decoder forgives the errors of a generator; its reconstructions are worse than those of kl.py. Figures and hours: not measured.

Options: those of kl.py.
"""

from vq.recipes import digits_kl

MASKS = dict(type='TokenMasking', low=-0.1, high=0.7)
NOISE = dict(type='GaussianMix', gamma=1.0, deviation=3.0)
_export_ = digits_kl(_kwargs_, perturbation=dict(type='PerturbationChain', parts=[MASKS, NOISE]))
