"""The ``codebook_size`` that codebook metrics take from a model."""

from __future__ import annotations

from vq.core.bindings import Bound, same
from vq.core.errors import ConfigError
from vq.interfaces import Tokenizer


def counted_codes(tokenizer: Tokenizer, together: bool = False) -> Bound:
    """The ``codebook_size`` of metrics: the number of codes, or the list of sizes if the tokenizer has several codebooks.

    With several codebooks a config may give either form. The list counts the codes of each codebook; the number counts the
    codes of all codebooks in one table. The default is the list, or with ``together`` the number.
    """
    if not tokenizer.can_tokenize:
        raise ConfigError(
            f'{type(tokenizer).__name__} is continuous: it has no codes to count',
            'Leave metrics of codebooks out, or set them to None in the config (codebook=None).',
        )
    number = tokenizer.codebook_size
    each = list(tokenizer.codebooks) if len(tokenizer.codebooks) > 1 else number
    value, other = (number, each) if together else (each, number)
    return Bound(value, lambda given: same(given, other))
