"""Thresholds on the data that a denoiser estimates. For pixels, whose range is known; latents have no range."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.interfaces import Path
from vq.interfaces.denoisers import Denoise
from vq.sampling.diffusion.stepping import at, require_determined
from vq.sampling.predictions import data_and_noise


def clamped(x0: Tensor, limit: float = 1.0) -> Tensor:
    """x0 within [-limit, limit]."""
    return x0.clamp(-limit, limit)


def dynamic(x0: Tensor, quantile: float, limit: float = 1.0) -> Tensor:
    """x0 within [-s, s], times limit / s;  s = max(limit, the quantile of |x0|) for each image  (Saharia et al. 2022)."""
    size = torch.quantile(x0.abs().flatten(1), quantile, dim=1).clamp(min=limit).view(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-size, size) * (limit / size)


class Thresholded:
    """A denoiser whose estimate of the data is kept within ``limit``, with a ``quantile`` by the dynamic threshold. A
    ``Denoise``; it estimates x0. Guidance comes first:  ``Thresholded(Guided(...), path)``."""

    def __init__(self, denoise: Denoise, path: Path, limit: float = 1.0, quantile: float | None = None) -> None:
        if not limit > 0:
            raise ConfigError(
                f'the threshold on the data is {limit}', 'Give the largest absolute value of the data, 1 for pixels.'
            )
        if quantile is not None and not 0 < quantile <= 1:
            raise ConfigError(
                f'the quantile of the threshold is {quantile}',
                'Give a share of the values of an image, such as 0.995, or None.',
            )
        self.denoise, self.path, self.limit, self.quantile = denoise, path, float(limit), quantile

    def __call__(self, z: Tensor, t: float, condition: Condition | None, /) -> Prediction:
        prediction, where = self.denoise(z, t, condition), at(self.path, t)
        require_determined(prediction.kind, where)
        x0, _ = data_and_noise(prediction, z, where.level)
        x0 = clamped(x0, self.limit) if self.quantile is None else dynamic(x0, self.quantile, self.limit)
        return Prediction(x0, 'x0', prediction.variance)
