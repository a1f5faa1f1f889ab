"""Train a classifier: a linear probe on a frozen tokenizer, or a network from scratch."""

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
from vq.tasks.image_classification.head import LinearHead


class Network(nn.Module):
    """The root of a classifier whose backbone is trained too: image (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, backbone: Encoder, head: LinearHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(image))
        return logits


@VQTaskRegistry.register_()
class ImageClassification(Task):
    """loss = cross entropy of softmax(W norm(mean_hw f(x)) + b) and the category. One optimizer, named ``classifier``.

    ``backbone`` is f. If none of its parameters requires gradients, as in a ``FrozenTokenizer``, only the head is trained: a
    linear probe. Otherwise backbone and head are trained. The linear layer takes the mean over all cells, or with ``grid`` g
    the means over g x g regions.
    """

    kind: ClassVar[str] = 'classifier'  # written into the spec of its runs

    def __init__(self, backbone: Encoder, classes: int = 1000, grid: int = 1) -> None:
        super().__init__()
        if classes < 2 or grid < 1:
            raise ConfigError(f'classes is {classes} and grid is {grid}', 'Give 2 or more classes, and a grid of 1 or more.')
        self.backbone, self.classes = backbone, classes
        self.head = LinearHead(backbone.out_channels, classes, grid)
        self.frozen = not any(parameter.requires_grad for parameter in backbone.parameters())
        # in a dict, so that nn.Module does not register it twice
        self._roots: dict[str, nn.Module] = {'classifier': self.head if self.frozen else Network(backbone, self.head)}
        self.outputs = Outputs()

    @property
    def dimension(self) -> int:
        """Width of the linear layer's input."""
        return self.head.dimension

    def roots(self) -> dict[str, nn.Module]:
        return dict(self._roots)

    def training_step(self, batch: Batch, roots: Mapping[str, nn.Module], step: int) -> Iterator[tuple[str, Losses]]:
        logits: Tensor = roots['classifier'](self._seen(to_float(batch.image)))
        if batch.category is None:
            raise ConfigError(
                'a classifier learns from categories, and this dataset gives none',
                'Take a dataset with classes: for a folder of images, one folder for each class and classes=True.',
            )
        losses = Losses()
        losses.add('cross_entropy', self._cross_entropy(logits, batch.category))
        self.outputs = Outputs(logits=logits.detach())
        yield 'classifier', losses

    @torch.no_grad()
    def validation_step(self, batch: Batch) -> Outputs:
        logits: Tensor = self._roots['classifier'](self._seen(to_float(batch.image)))
        found = Outputs(logits=logits)
        if batch.category is not None:
            found.losses['cross_entropy'] = self._cross_entropy(logits, batch.category)
        return found

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) float in [-1, 1] -> f(x) (B, C, h, w), and the input of the linear layer (B, dimension)."""
        features: Tensor = self.backbone(image)
        return features, self.head.pool(features)

    @torch.no_grad()
    def represent(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) float in [-1, 1] -> input of the linear layer (B, dimension), and logits (B, classes)."""
        _, pooled = self.features(image)
        return pooled, self.head.linear(pooled)

    def _seen(self, image: Tensor) -> Tensor:
        """The input of the root: features of a frozen backbone, otherwise the image."""
        features: Tensor = self.backbone(image) if self.frozen else image
        return features

    def _cross_entropy(self, logits: Tensor, category: Tensor) -> Tensor:
        try:
            return F.cross_entropy(logits.float(), category)
        except IndexError as error:  # CPU only: on a GPU this is a device-side assert
            raise ConfigError(
                f'the dataset has more categories than the {self.classes} classes of the model ({error})',
                'Set model.classes to the number of categories.',
            ) from error
