"""The image sizes of a config against its model, before anything is trained or measured."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from vq.core.config import PyConfig
from vq.io.spec import size_in
from vq.tokenizers.sizes import check_image_size

logger = logging.getLogger('vq')


def check_sizes(config: PyConfig, which: str, model: nn.Module) -> None:
    """Refuse an ``image_size`` that does not divide into cells; warn of a validator of another size than the trainer's."""
    sizes = {name: size_in(_dataset(config, name)) for name in dict.fromkeys((which, 'validator')) if name in config}
    downsampling = getattr(getattr(model, 'tokenizer', None), 'downsampling', None)
    for name, size in sizes.items():
        if size is not None and isinstance(downsampling, int):
            check_image_size(size, size, downsampling, f'{name}.dataset')
    trained, validated = sizes.get('trainer'), sizes.get('validator')
    if which == 'trainer' and trained is not None and validated is not None and trained != validated:
        logger.warning(
            'training images have image_size %d and validation images %d: figures of validation are of another size. The '
            'option image_size sets both; in overrides set .trainer.dataset and .validator.dataset.',
            trained,
            validated,
        )


def _dataset(config: PyConfig, name: str) -> Any:
    return config[name].get('dataset') or {}
