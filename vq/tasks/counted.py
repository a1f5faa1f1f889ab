"""What metrics of codebooks count of a model."""

from __future__ import annotations

from vq.core.bindings import Bound, same
from vq.core.errors import ConfigError
from vq.interfaces import Tokenizer


def counted_codes(tokenizer: Tokenizer, together: bool = False) -> Bound:
    """The ``codebook_size`` of metrics: the number of codes, or a list where tokens come from several codebooks.

    A config may ask for the other form where there are several: the list, or one number, which counts the codes of all
    codebooks in one table. ``together``: the number is what metrics get of themselves.
    """
    if not tokenizer.codebook_size:
        raise ConfigError(
            f'{type(tokenizer).__name__} is continuous: it has no codes to count',
            'Leave metrics of codebooks out, or set them to None in the config (codebook=None).',
        )
    number, each = tokenizer.codebook_size, list(tokenizer.codebook_sizes) or tokenizer.codebook_size
    value, other = (number, each) if together else (each, number)
    return Bound(value, lambda given: same(given, other))
