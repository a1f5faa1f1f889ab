"""FSQ (Mentzer et al. 2023) in VQGAN's autoencoder: channels with levels of their own, by number of codes.

    8,000 = 8 x 8 x 5 x 5 x 5        64,000 = 8 x 8 x 8 x 5 x 5 x 5

Options: ``codebook_size`` (needed: 8000 or 64000, or any number together with ``levels``), and those of sq/interface.py.
"""

from vq.core.errors import ConfigError

LEVELS = {8000: [8, 8, 5, 5, 5], 64000: [8, 8, 8, 5, 5, 5]}

size = _kwargs_['codebook_size']
if size not in LEVELS and 'levels' not in _kwargs_:
    raise ConfigError(
        f'the option codebook_size is {size}, and levels are known for {sorted(LEVELS)}',
        'Give one of these, or the levels of the channels as well: --config-options levels:[8,5,5,5].',
    )
_kwargs_.setdefault('levels', LEVELS.get(size))

_base_ = ['../sq/interface.py']

_export_ = {}
