"""Any classifier trained with this toolkit as a feature network, for data unlike the training data of Inception."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.core.records import to_float
from vq.core.trust import import_modules
from vq.interfaces import FeatureNetwork, Features, Pretrained, Task
from vq.io.runs import Run, find, weight_files
from vq.io.weights import load_model_from
from vq.nn.precision import no_autocast
from vq.registries import VQFeatureNetworkRegistry


@runtime_checkable
class Represents(Protocol):
    """The interface that a task needs to serve as a feature network."""

    dimension: int

    def represent(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) float in [-1, 1] -> features (B, dimension), logits (B, classes)."""


@VQFeatureNetworkRegistry.register_()
class ClassifierFeatures(FeatureNetwork):
    """uint8 images -> the input of a classifier's last linear layer, and the logits; in fp32.

    - ``classifier``: the trained task, as in its config.
    - ``weights``: its run, a checkpoint, or a file (see ``vq/io/runs.py``). Read by ``load_pretrained``; random until then.
    - ``image_size``: images of another size are resized to it, bilinear with antialiasing; None: images are not resized.

    ``classifier_features`` takes all three from a run. Figures of different runs cannot be compared.
    """

    def __init__(self, classifier: Task, weights: str | None = None, image_size: int | None = None) -> None:
        super().__init__()
        if not isinstance(classifier, Represents):
            raise ConfigError(
                f'{type(classifier).__name__} has no features of whole images', 'Give an ImageClassification as classifier.'
            )
        self.classifier, self.weights, self.image_size = classifier, weights, image_size
        self.dimension = classifier.dimension
        self.requires_grad_(False)
        self.eval()

    @property
    def description(self) -> dict[str, str]:
        size = self.image_size
        resize = 'none' if size is None else f'to {size} x {size}, bilinear, antialiased'
        network = f'ClassifierFeatures({type(self.classifier).__name__}, {self.dimension} features)'
        return {'network': network, 'preprocessing': f'x / 127.5 - 1; resize {resize}', 'precision': 'fp32'}

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ConfigError(
                f'the classifier was given {image.dtype} of the shape {tuple(image.shape)}',
                'Give uint8 images (B, 3, H, W): the range of floats is ambiguous. Repeat the channel of gray images 3 times.',
            )
        with no_autocast(image.device):
            x = to_float(image)
            if self.image_size is not None and x.shape[-2:] != (self.image_size, self.image_size):
                x = F.interpolate(x, (self.image_size, self.image_size), mode='bilinear', antialias=True)
            assert isinstance(self.classifier, Represents)
            return Features(*self.classifier.represent(x))

    def pretrained_files(self) -> list[Path]:
        files = [file for part in inner_parts(self.classifier) for file in part.pretrained_files()]
        return [*weight_files(self.weights), *files]

    def load_pretrained(self) -> None:
        load_model_from(self.classifier, [self._source()])
        for part in inner_parts(self.classifier):
            part.load_pretrained()

    def _source(self) -> Run:
        if self.weights is None:
            raise UserError('the config has no weights for the classifier', "Give the classifier's run as weights.")
        return find(self.weights)


def inner_parts(model: nn.Module) -> list[Pretrained]:
    """Frozen parts of a trained model, which have pretrained files of their own."""
    return [part for part in model.modules() if isinstance(part, Pretrained) and part.frozen]


def classifier_features(name: str | Path, trust: bool = False) -> ClassifierFeatures:
    """The feature network, with weights, of a classification run: its NAME, its folder, or one of its checkpoints.

    ``trust``: import the custom_imports of the run.
    """
    run = find(name, trust=trust)
    if run.checkpoint is None:
        raise UserError(f'{run.weights} is a file without the config of its network', 'Give the run.')
    import_modules(run.custom_imports)
    classifier, image = (run.config.get('trainer') or {}).get('model') or run.model, run.spec.image
    network: ClassifierFeatures = VQFeatureNetworkRegistry.build(
        {
            'type': 'ClassifierFeatures',
            'classifier': classifier,
            'weights': str(run.weights),
            'image_size': None if image is None else image[0],
        }
    )
    network.load_pretrained()
    return network
