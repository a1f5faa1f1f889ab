"""A head that makes tokens by a diffusion of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.core.bindings import Bound, Source
from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.interfaces import Conditioned, Denoiser, Drive, Path, Streams, TimeLaw, TokenDrawing, TokenHead
from vq.losses.objective import Objective
from vq.registries import VQTokenHeadRegistry
from vq.sampling.guided import guided_halves
from vq.sampling.predictions import noised
from vq.sampling.times import UniformTimes


def _width(values: Mapping[str, Any]) -> Bound | None:
    """The channels of the condition: those of z, unless the denoiser has a width of its own."""
    dim = values.get('dim')
    return None if dim is None else Bound(dim, lambda given: True)


@VQTokenHeadRegistry.register_()
class DiffusionHead(TokenHead):
    """x_t = alpha x + sigma eps,  loss = E |f(x_t, t, z) - target(x, eps, t)|^2  for each token x and its vector z.

    (Li et al. 2024, MAR.) f is any denoiser, which sees a token as a latent of 1 x 1 cells, and z as its condition; if its
    ``dim`` is another than that of z, a linear layer is between. ``MLPDenoiser`` is the published one.

    - ``repeats``: each token is learned at so many times, with other noise, for one vector z.
    - ``binned``: the last step of the variational bound is the probability of a bin of 2 / 255, as in the published code;
      otherwise the density.
    - ``path``, ``times``, ``space``, ``min_snr``, ``bound_weight``: as in ``DiffusionTask``; without ``times``, all alike.

    Drawing runs the sampler of ``TokenDrawing`` once for all tokens of an iteration. ``temperature`` scales the noise of its
    steps, not the noise it starts from.
    """

    takes = ('guidance', 'sampler', 'steps', 'temperature')
    binds: ClassVar[dict[str, Source]] = {
        'denoiser.channels': lambda values: values.get('channels'),
        'denoiser.cells': lambda values: (1, 1),
        'denoiser.dim': _width,
    }

    def __init__(
        self,
        channels: int,
        dim: int,
        denoiser: Denoiser,
        path: Path,
        times: TimeLaw | None = None,
        repeats: int = 4,
        space: PredictionKind | None = None,
        min_snr: float | None = None,
        bound_weight: float = 1.0,
        binned: bool = True,
    ) -> None:
        super().__init__()
        if repeats < 1:
            raise ConfigError(f'repeats is {repeats}', 'Give 1 or more; 4 is published.')
        self.channels, self.dim, self.repeats = channels, dim, repeats
        self.denoiser, self.path, self.times = denoiser, path, times or UniformTimes()
        if type(self.times).observe is not TimeLaw.observe:
            raise ConfigError(
                f'{type(self.times).__name__} follows the losses of a step, and heads do not tell them',
                'Take UniformTimes or LogitNormalTimes.',
            )
        self.objective = Objective(path, space, min_snr, bound_weight, pixels=binned)
        self.project = nn.Linear(dim, denoiser.dim) if denoiser.dim != dim else nn.Identity()

    @property
    def loss_weights(self) -> dict[str, float]:
        return {'bound': self.objective.bound_weight}

    def forward(self, tokens: Tensor, z: Tensor, streams: Streams) -> dict[str, Tensor]:
        count, shape = tokens.shape[1], (self.repeats, *tokens.shape[1:])
        uniform = streams.uniforms(self.repeats, count, of='time of the head').flatten()  # (B R n,)
        eps = streams.normals(*shape, of='noise of the head').flatten(0, 2)  # (B R n, C)
        t, weights = self.times(uniform, self.path)
        found = self.rows(repeated(tokens, self.repeats), repeated(z, self.repeats), t, eps)
        return {name: (weights * value).mean() for name, value in found.items()}

    def rows(self, x: Tensor, z: Tensor, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
        """x and eps (N, C), z (N, dim), t (N,) -> losses (N,) without weights."""
        level = self.path.level(t)
        x, eps = (value.float()[..., None, None] for value in (x, eps))  # (N, C, 1, 1)
        x_t = noised(x, eps, level)
        prediction: Prediction = self.denoiser(x_t, t, Conditioned(self.project(z)))
        found = {'denoising': self.objective.error(prediction, x, eps, level)}
        bound = self.objective.bound(prediction, x_t, x, t)
        return found if bound is None else found | {'bound': bound}

    def draw(
        self, z: Tensor, empty: Tensor | None, scale: float, drawing: TokenDrawing, noise: Callable[[str], Tensor]
    ) -> Tensor:
        if drawing.sampler is None:
            raise ConfigError('a DiffusionHead draws by a sampler, and there is none', "Set sampler=dict(type='Ancestral').")
        rows, count, _ = z.shape
        known = z if empty is None or scale == 1 else torch.cat([z, empty])
        condition = Conditioned(self.project(known.flatten(0, 1)))

        def denoise(x: Tensor, t: float, _: Condition | None, /) -> Prediction:
            doubled = len(known) > rows
            both: Prediction = self.denoiser(
                torch.cat([x, x]) if doubled else x, x.new_full((len(known) * count,), t), condition
            )
            return guided_halves(both, scale) if doubled else both

        def numbers(purpose: str) -> Tensor:
            return noise(purpose).flatten(0, 1)[..., None, None]  # (B n, C, 1, 1)

        drive = Drive(denoise, self.path, None, lambda step: drawing.temperature * numbers(f'step {step}'))
        x: Tensor = deque(drawing.sampler(numbers('start'), drive), maxlen=1).pop()  # the last state
        return x.view(rows, count, -1)


def repeated(rows: Tensor, times: int) -> Tensor:
    """(B, n, C) -> (B times n, C): all tokens of an image ``times`` times, then those of the next."""
    return rows[:, None].expand(-1, times, -1, -1).flatten(0, 2)
