"""Parts for tests only; configs import them with ``custom_imports=['tests.runners.parts']``."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.records import Batch, Latent, Losses, Outputs
from vq.interfaces import Callback, Loss
from vq.registries import VQCallbackRegistry, VQLossRegistry, VQTeacherRegistry
from vq.teachers.dinov2 import DINOv2Teacher


@VQCallbackRegistry.register_()
class KillCallback(Callback):
    """``kill -9`` of one rank in the middle of a step: losses are computed, nothing is updated yet.

    At most ``times`` kills per run folder, over all processes; ``kills.txt`` has the count.
    """

    def __init__(self, step: int, rank: int = 0, number: int = signal.SIGKILL, times: int | None = None) -> None:
        self.step, self.rank, self.number, self.times = step, rank, number, times

    def after_losses(self, name: str, losses: Losses) -> None:
        if self.runner.step + 1 != self.step or collectives.rank() != self.rank:
            return
        kept = Path(self.runner.work_dir, 'kills.txt')
        kills = len(kept.read_text()) if kept.exists() else 0
        if self.times is None or kills < self.times:
            kept.write_text('x' * (kills + 1))
            os.kill(os.getpid(), self.number)


@VQCallbackRegistry.register_()
class SampleRecorder(Callback):
    """Writes the ids of every batch, by step and rank."""

    def after_batch(self, batch: Batch, outputs: Outputs) -> None:
        with Path(self.runner.work_dir, f'samples_{collectives.rank()}.txt').open('a') as file:
            file.write(f'{self.runner.step + 1} {" ".join(batch.id)}\n')


@VQCallbackRegistry.register_()
class NoiseCallback(Callback):
    """Draws from the global generator in every step, so that wrong random states after a resume change the weights."""

    @torch.no_grad()
    def before_step(self) -> None:
        parameter = next(self.runner.model.parameters())
        noise = collectives.broadcast(torch.randn(parameter.shape))  # ranks draw differently, weights must not
        parameter.add_(noise.to(parameter) * 1e-3)


@VQLossRegistry.register_()
class FailingLoss(Loss):
    """An L2 loss that returns ``value`` in its n-th call (1, 2, ...), on one rank or on all."""

    def __init__(self, call: int, value: float = float('nan'), rank: int | None = None, weight: float = 1.0) -> None:
        super().__init__()
        self.call, self.value, self.rank, self.weight, self.calls = call, value, rank, weight, 0

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.calls += self.training
        loss = torch.nn.functional.mse_loss(prediction.float(), target)
        here = self.rank is None or self.rank == collectives.rank()
        return loss * self.value if self.calls == self.call and here and self.training else loss


@VQLossRegistry.register_()
class LatentNorm(Loss):
    """Mean square of the latent and of the input of the decoder."""

    acts_on = 'latent'

    def __init__(self, weight: float = 0.2) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, latent: Latent, z: Tensor) -> Tensor:
        return latent.mean.float().square().mean() + z.float().square().mean()


@VQLossRegistry.register_()
class ParameterNorm(Loss):
    """Sum of squares of all trained parameters."""

    acts_on = 'parameters'

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, module: torch.nn.Module) -> Tensor:
        squares = [value.float().square().sum() for value in module.parameters() if value.requires_grad]
        return sum(squares[1:], squares[0])


@VQLossRegistry.register_()
class FeatureDistance(Loss):
    """1 - cosine of two maps (B, C, h, w), per cell."""

    acts_on = 'features'
    weight = 1.0

    def forward(self, prediction: Tensor, features: Tensor) -> Tensor:
        return 1 - torch.cosine_similarity(prediction.float(), features.float(), dim=1).mean()


@VQTeacherRegistry.register_()
class LivelyTeacher(DINOv2Teacher):
    """A tiny network with weights so large that its features differ from patch to patch. With the small weights that a new
    network has, they are nearly constant, and norms would amplify rounding."""

    def __init__(self, file: str = 'none') -> None:
        super().__init__(dimension=16, depth=2, heads=2, image_size=28, file=file)
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, std=0.2)
