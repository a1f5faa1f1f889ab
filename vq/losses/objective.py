"""What a denoiser is trained on: the error of its estimate, and the bound of a learned variance."""

from __future__ import annotations

from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Level, Path
from vq.losses.denoising import ElboRule, elbo_weights, min_snr_weight, squared_error
from vq.losses.variational import neighbours, step_bits


class Objective:
    """|error in ``space``|^2 and, of networks with a learned variance, the term of its step in the variational bound.

    - ``space``: None is the kind that the network estimates.
    - ``min_snr``: gamma of the weights min(SNR, gamma) |x0 error|^2, whatever the space (Hang et al. 2023).
    - ``bound_weight``: of the bound, in bits per number of the latent. It trains the variance alone; 1 is the published sum
      (Nichol and Dhariwal 2021). ``pixels``: x0 has 8-bit values.
    - ``elbo_weight``: of the same bound for the estimate, as a second weight of its squared error; by ``elbo_rule``, see
      ``elbo_weights``. Latent diffusion has both terms.
    """

    def __init__(
        self,
        path: Path,
        space: PredictionKind | None,
        min_snr: float | None,
        bound_weight: float,
        pixels: bool,
        elbo_weight: float = 0.0,
        elbo_rule: ElboRule = 'derived',
    ) -> None:
        if not bound_weight >= 0 or not elbo_weight >= 0 or (min_snr is not None and not min_snr > 0):
            raise ConfigError(
                f'min_snr is {min_snr}, bound_weight {bound_weight} and elbo_weight {elbo_weight}',
                'Give a min_snr above 0, or None, and weights from 0.',
            )
        self.path, self.space, self.min_snr, self.bound_weight = path, space, min_snr, bound_weight
        self.pixels, self.elbo_weight, self.elbo_rule = pixels, elbo_weight, elbo_rule

    def error(self, prediction: Prediction, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """(B,)."""
        space = self.space or prediction.kind
        error = squared_error(prediction, x0, eps, level, space)
        return error if self.min_snr is None else error * min_snr_weight(level, space, self.min_snr)

    def elbo(self, prediction: Prediction, x0: Tensor, eps: Tensor, level: Level, t: Tensor) -> Tensor | None:
        """(B,) nats, at times t (B,) of the grid of the path. None without a weight."""
        if not self.elbo_weight:
            return None
        weights = elbo_weights(self.path, t, prediction.kind, self.elbo_rule)
        return squared_error(prediction, x0, eps, level) * weights

    def bound(self, prediction: Prediction, z: Tensor, x0: Tensor, t: Tensor) -> Tensor | None:
        """(B,) bits, at times t (B,) of the grid of the path. None without a learned variance."""
        if prediction.variance is None or not self.bound_weight:
            return None
        here, there, floor = neighbours(self.path, t)
        return step_bits(prediction, z, x0, here, there, floor, pixels=self.pixels)
