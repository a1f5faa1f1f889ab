"""A continuous autoencoder of digits whose first channels and first cells hold the most, as in DC-AE 1.5 and FlexTok (2025).

    auto_torchrun -m vq.train digits_kl_ordered configs/digits/kl_ordered.py

In training the last channels become zero, and the last of the 16 cells a learned vector. Figures and hours: not measured.

Options: those of kl.py; ``latent_channels`` must be even.
"""

from vq.recipes import digits_kl

CHANNELS, CELLS = dict(type='ChannelDrop', least=2, step=2), dict(type='TokenDrop')
_export_ = digits_kl(_kwargs_, perturbation=dict(type='PerturbationChain', parts=[CHANNELS, CELLS]))
