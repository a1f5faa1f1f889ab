"""Train a small segmenter: a convolutional encoder, and a classifier of the pixels of each of its cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Batch, Losses, Outputs, to_float
from vq.interfaces import Encoder, Task
from vq.registries import VQTaskRegistry


class PixelClassifier(nn.Module):
    """image x (B, 3, H, W) -> features of an encoder (B, C, h, w) -> logits (B, classes, H, W).

    logits = up(W f) + V x,  W f: of each cell, resized to the image; V: a 3x3 convolution, which tells the edges of things.
    The encoder sees blocks of ``patch`` x ``patch`` pixels as channels.
    """

    def __init__(self, backbone: Encoder, classes: int, patch: int = 1) -> None:
        super().__init__()
        self.backbone, self.patch = backbone, patch
        self.head = nn.Conv2d(backbone.out_channels, classes, 1)
        self.near = nn.Conv2d(3, classes, 3, padding=1)

    def features(self, image: Tensor) -> Tensor:
        found: Tensor = self.backbone(F.pixel_unshuffle(image, self.patch))
        return found

    def forward(self, image: Tensor) -> Tensor:
        return self.logits(image, self.features(image))

    def logits(self, image: Tensor, features: Tensor) -> Tensor:
        cells = F.interpolate(self.head(features), image.shape[2:], mode='bilinear')
        found: Tensor = cells + self.near(image)
        return found


@VQTaskRegistry.register_()
class ImageSegmentation(Task):
    """loss = mean over pixels of the cross entropy of a softmax over ``labels`` + 1 and the label. Optimizer: ``segmenter``.

    In the mean a pixel of nothing counts ``nothing_weight``: where most of an image is nothing, a network that gives it less
    weight learns classes sooner.
    The last class is nothing: that of pixels with the label ``nothing``, such as those beside the digits of a canvas. Labels
    are the ``mask`` of a batch. ``patch``: see ``PixelClassifier``. The run of a segmenter is also a feature network of
    ``ClassifierFeatures``: see ``represent``.
    """

    kind: ClassVar[str] = 'segmenter'  # written into the spec of its runs

    def __init__(
        self, backbone: Encoder, labels: int, patch: int = 1, nothing: int = 255, nothing_weight: float = 1.0
    ) -> None:
        super().__init__()
        if labels < 1 or 0 <= nothing < labels:
            raise ConfigError(
                f'labels is {labels} and nothing is {nothing}', 'Give 1 class or more, and for nothing a number that is none.'
            )
        self.label_count, self.nothing, self.dimension = labels, nothing, backbone.out_channels
        self.nothing_weight = nothing_weight
        self.network = PixelClassifier(backbone, labels + 1, patch)

    def roots(self) -> dict[str, nn.Module]:
        return {'segmenter': self.network}

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        logits: Tensor = roots['segmenter'](to_float(batch.image))
        losses = Losses()
        weights = logits.new_ones(self.label_count + 1, dtype=torch.float32)
        weights[-1] = self.nothing_weight
        losses.add('cross_entropy', F.cross_entropy(logits.float(), self.targets(batch), weights))
        yield 'segmenter', losses

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        logits: Tensor = self.network(to_float(batch.image)).float()
        found = Outputs(labels=logits.argmax(1))
        found.losses['cross_entropy'] = F.cross_entropy(logits, self.targets(batch))
        return found

    def forward_once(self, batch: Batch) -> None:
        """One pass of the network, which needs no labels."""
        self.network(to_float(batch.image))

    def targets(self, batch: Batch) -> Tensor:
        """The class of each pixel (B, H, W), of which ``label_count`` is nothing."""
        if batch.mask is None:
            raise ConfigError(
                'a segmenter learns from masks, and this dataset gives none', 'Take a dataset with labels of pixels.'
            )
        labels = batch.mask.long()
        return torch.where(labels == self.nothing, self.label_count, labels)

    @torch.no_grad()
    def segment(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) float in [-1, 1] -> the class of each pixel (B, H, W) int64; ``label_count`` is nothing."""
        found: Tensor = self.network(image).argmax(1)
        return found

    @torch.no_grad()
    def represent(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) float in [-1, 1] -> the mean of the features (B, dimension), and logits (B, labels): the log of
        the share of the image that is of each class."""
        features = self.network.features(image)
        shares = self.network.logits(image, features).float().softmax(1).mean((2, 3))[:, : self.label_count]
        return features.float().mean((2, 3)), shares.clamp(min=1e-12).log()
