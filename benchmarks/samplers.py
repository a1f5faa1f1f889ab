"""How fast the error of diffusion samplers falls with the number of evaluations, on a mixture of Gaussians in two dimensions.

    python benchmarks/samplers.py --picture docs/samplers.png
    python benchmarks/samplers.py --quick    a few seconds; its orders are those of few steps

The denoiser is the closed form, so that the error is that of the sampler alone. The true end of each trajectory comes from the
classical Runge-Kutta method on the ordinary differential equation of the path, in small steps, fp64. A sampler of order p has
an error that falls like (evaluations)^-p: a line of slope -p in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path as File
from typing import Any

import torch
from _common import Cell, arguments, finish, machine, must_be_equal, rounded, table
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.records import Prediction
from vq.interfaces import Drive, Path
from vq.registries import VQDiffusionSamplerRegistry
from vq.sampling.paths.betas import BetaPath
from vq.sampling.paths.cosine import CosinePath
from vq.sampling.paths.flow import FlowPath

PATHS: dict[str, Path] = {'FlowPath': FlowPath(), 'CosinePath': CosinePath(), 'BetaPath': BetaPath()}
ORDINARY = ['Euler', 'DDIM', 'PLMS', 'Heun', 'DPMSolver']
COLOURS = {'Euler': '#b03030', 'PLMS': '#c08020', 'Heun': '#3060a0', 'DPMSolver': '#308050'}
STEPS = {'FlowPath': [10, 20, 40, 80, 160], 'CosinePath': [10, 20, 40, 80, 160], 'BetaPath': [10, 20, 40]}
SPACING = {'FlowPath': 'uniform', 'CosinePath': 'uniform', 'BetaPath': 'quadratic'}
TRUE_STEPS = 1000


class Mixture:
    """sum_k w_k N(m_k, d_k^2) in two dimensions. Noised to time t it is the same with means alpha m_k and variances
    v_k = alpha^2 d_k^2 + sigma^2, which gives the expected data and noise at any z."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
        self.means = torch.tensor([[1.0, 0.5], [-1.0, 0.8], [0.2, -1.2]], dtype=torch.float64)
        self.deviations = torch.tensor([0.4, 0.3, 0.5], dtype=torch.float64)

    def log_parts(self, z: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """log of w_k N(z; k) (N, K), z - alpha m_k (N, K, 2), v_k (K,)."""
        spread = alpha**2 * self.deviations**2 + sigma**2
        away = z[:, None] - alpha * self.means
        return self.weights.log() - away.square().sum(-1) / (2 * spread) - (2 * math.pi * spread).log(), away, spread

    def data_and_noise(self, z: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        logs, away, spread = self.log_parts(z, alpha, sigma)
        share = logs.softmax(1)[..., None]
        pull = away / spread[:, None]
        x0 = self.means + alpha * self.deviations[:, None] ** 2 * pull
        return (share * x0).sum(1), sigma * (share * pull).sum(1)

    def denoise(self, z: Tensor, t: float, condition: Condition | None) -> Prediction:
        alpha, sigma, *_ = map(float, self.path.level_at(t))
        return Prediction(self.data_and_noise(z, alpha, sigma)[0], 'x0')

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (2,) and covariance (2, 2) of the data."""
        mean = self.weights @ self.means
        away = self.means - mean
        return mean, (away.T * self.weights) @ away + (self.weights @ self.deviations**2) * torch.eye(2)


def starts(count: int) -> Tensor:
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def true_ends(mixture: Mixture, z: Tensor, steps: int) -> Tensor:
    """The classical Runge-Kutta method of order 4, from t = 1 to 0, on  dz / du = alpha' x0 + sigma' eps.

    u is t on the straight path, and the angle of (alpha, sigma) on the circle of the others. What u is makes no difference to
    the end.
    """
    alpha, sigma, *_ = map(float, mixture.path.level_at(1.0))
    straight = isinstance(mixture.path, FlowPath)
    first_u = 1.0 if straight else math.atan2(sigma, alpha)

    def slope(z: Tensor, u: float) -> Tensor:
        level = (1 - u, u, -1.0, 1.0) if straight else (math.cos(u), math.sin(u), -math.sin(u), math.cos(u))
        x0, eps = mixture.data_and_noise(z, level[0], level[1])
        return level[2] * x0 + level[3] * eps

    h = -first_u / steps
    for step in range(steps):
        u = first_u * (1 - step / steps)
        one = slope(z, u)
        two = slope(z + h / 2 * one, u + h / 2)
        three = slope(z + h / 2 * two, u + h / 2)
        z = z + h / 6 * (one + 2 * two + 2 * three + slope(z + h * three, u + h))
    return z


def last(mixture: Mixture, z: Tensor, sampler: str, steps: int, **settings: Any) -> tuple[Tensor, int]:
    """z at time 0 and the number of evaluations."""
    evaluations = 0

    def denoise(z: Tensor, t: float, condition: Condition | None) -> Prediction:
        nonlocal evaluations
        evaluations += 1
        return mixture.denoise(z, t, condition)

    stream = torch.Generator().manual_seed(1)
    drive = Drive(denoise, mixture.path, None, lambda step: torch.randn(z.shape, dtype=z.dtype, generator=stream))
    *_, end = VQDiffusionSamplerRegistry.build(dict(type=sampler, steps=steps, **settings))(z, drive)
    return end, evaluations


def errors(
    path: Path, counts: Sequence[int], points: int, true_steps: int, spacing: str = 'uniform'
) -> dict[str, list[tuple[int, float]]]:
    """Sampler -> (evaluations, root mean square error at time 0) for each number of steps."""
    mixture, z = Mixture(path), starts(points)
    true = true_ends(mixture, z, true_steps)
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in ORDINARY}
    for name, rows in found.items():
        for steps in counts:
            end, evaluations = last(mixture, z, name, steps, spacing=spacing)
            rows.append((evaluations, float((end - true).square().mean().sqrt())))
    return found


def order(rows: Sequence[tuple[int, float]]) -> float:
    """The slope between the last two numbers of steps."""
    (few, large), (many, small) = rows[-2:]
    return math.log(large / small) / math.log(many / few)


def draw(file: File, found: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(4.2 * len(found), 3.8), sharey=True, layout='constrained')
    for panel, (path, rows) in zip(panels, found.items(), strict=True):
        for name, colour in COLOURS.items():
            label = 'Euler, DDIM' if name == 'Euler' else name
            evaluations, sizes = zip(*rows[name], strict=True)
            panel.loglog(
                evaluations, sizes, color=colour, marker='o', markersize=4, label=f'{label}  ({order(rows[name]):.1f})'
            )
        few, many = 10, 160
        for slope in (1, 2):
            reference = [0.2, 0.2 * (few / many) ** slope]
            panel.loglog([few, many], reference, color='#909090', linestyle=':', linewidth=1)
            panel.annotate(f' slope {slope}', (many, reference[1]), color='#606060', fontsize=8, ha='left', va='center')
        panel.set_xlim(8, 500)
        panel.set_title(f'{path}, {SPACING[path]} steps', fontsize=11)
        panel.set_xlabel('evaluations of the denoiser')
        panel.grid(True, which='major', color='#e0e0e0')
        panel.legend(title='sampler  (measured order)', fontsize=8, title_fontsize=8, loc='lower left')
    panels[0].set_ylabel('error at time 0 (root mean square)')
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--picture', type=File, help='write the picture to this file')
    options = parser.parse_args()
    where = machine()
    counts = {name: steps[:3] if options.quick else steps for name, steps in STEPS.items()}
    points, true_steps = (64, 200) if options.quick else (512, TRUE_STEPS)
    found = {name: errors(path, counts[name], points, true_steps, SPACING[name]) for name, path in PATHS.items()}
    worst = max(
        abs(one - other) / one
        for rows in found.values()
        for (_, one), (_, other) in zip(rows['Euler'], rows['DDIM'], strict=True)
    )
    must_be_equal('DDIM without noise is the method of Euler', worst < 1e-6, f'errors differ by {worst:.1e} of their size')
    orders = {name: {sampler: rounded(order(rows), 3) for sampler, rows in of.items()} for name, of in found.items()}
    for path, of in found.items():
        lines: list[list[Cell]] = [
            [name, *(f'{size:.2g} ({evaluations})' for evaluations, size in rows), orders[path][name]]
            for name, rows in of.items()
        ]
        columns = ['sampler', *(f'{steps} steps' for steps in counts[path]), 'order']
        table(f'{path}, {SPACING[path]} steps: error (evaluations)', columns, lines)
    if options.picture:
        draw(options.picture, found)
        print(f'\npicture: {options.picture}')
    finish('samplers', options.quick, where, {'orders': orders, 'errors': found})


if __name__ == '__main__':
    main()
