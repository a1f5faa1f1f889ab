"""Align hidden features of a model with those of a teacher: VA-VAE on the latent, REPA and others on a layer."""

from __future__ import annotations

import itertools
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces import HiddenLoss, Layers, Loss, Teacher
from vq.registries import VQLossRegistry

Projection = Literal['linear', 'mlp', 'none']


@VQLossRegistry.register_()
class AlignmentLoss(HiddenLoss):
    """distance(P h, f(x)):  h hidden features of the model at ``place``, f the patch map of a frozen teacher.

    The teacher runs once a step, without gradients; its weights are in no checkpoint, their digest is. The projection P is
    trained by the optimizer of the model, and averaged and stored with it; nothing but training uses it.

    - ``place``: 'latent', the output of the encoder before it is quantized, or the path of a module from the task on:
      'tokenizer.decoder.levels.1', 'generator.network.blocks.3'.
    - ``channels``: of the features there.
    - ``layers``: of the teacher: 'last', 'penultimate', 'sum_of_last_K', numbers.
    - ``distance``: a loss that acts on features, without a weight of its own.
    - ``projection``: 'linear' (a 1x1 convolution), 'mlp' (three with SiLU between, ``width`` channels, as in REPA), or 'none'.
    - ``grid``: the teacher sees the image at the size of grid x grid patches, and the projected features are resized to this
      grid (bilinear). None: the teacher's grid is that of the features.
    - ``adaptive``: at the latent only. The weight is multiplied by |grad image losses| / |grad distance|, norms at the latent
      over the images of all ranks. VA-VAE takes both norms at the weight of the encoder's last layer instead. It costs a
      second backward through the decoder.
    """

    def __init__(
        self,
        teacher: Teacher,
        channels: int,
        distance: Loss,
        place: str = 'latent',
        layers: Layers = 'last',
        projection: Projection = 'linear',
        width: int = 2048,
        grid: int | None = None,
        weight: float = 1.0,
        adaptive: bool = False,
    ) -> None:
        super().__init__()
        if adaptive and place != 'latent':
            raise ConfigError(f"AlignmentLoss is adaptive at '{place}'", "Only place='latent' can be; set adaptive to False.")
        dimension = teacher.channels(layers)
        if distance.acts_on != 'features' or distance.weight != 1:
            raise ConfigError(
                f'the distance of AlignmentLoss is a {type(distance).__name__} of weight {distance.weight}, which acts on the '
                f'{distance.acts_on}',
                "Give a loss on features, such as dict(type='CosineLoss'), and the weight to AlignmentLoss.",
            )
        if projection == 'none' and channels != dimension:
            raise ConfigError(
                f'AlignmentLoss without projection compares {channels} channels with {dimension} of the teacher',
                "Use projection='linear'.",
            )
        if grid is not None and grid < 1:
            raise ConfigError(f'AlignmentLoss has grid {grid}', 'Give 1 or more patches a side, or None.')
        self.teacher, self.layers, self.distance = teacher, layers, distance
        self.place, self.channels, self.grid, self.weight = place, channels, grid, weight
        self.adaptive = adaptive
        self.head = make_head(projection, channels, width, dimension)

    def forward(self, prediction: Tensor, image: Tensor) -> Tensor:
        height, width = prediction.shape[-2:]
        cells = (height, width) if self.grid is None else (self.grid, self.grid)
        target = self.teacher.target(image, cells, self.layers)
        if cells != (height, width):
            prediction = F.interpolate(prediction.float(), cells, mode='bilinear', antialias=True)
        distance: Tensor = self.distance(prediction, target)
        return distance


def make_head(kind: Projection, channels: int, width: int, dimension: int) -> nn.Module:
    """(B, channels, h, w) -> (B, dimension, h, w)."""
    if kind == 'none':
        return nn.Identity()
    if kind == 'linear':
        return nn.Conv2d(channels, dimension, 1)
    sizes = [channels, width, width, dimension]
    layers = [nn.Conv2d(before, after, 1) for before, after in itertools.pairwise(sizes)]
    return nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
