"""Any classifier or tokenizer that this toolkit trained, as a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core.errors import ConfigError, UserError
from vq.core.specs import size_of
from vq.core.trust import import_modules
from vq.interfaces import Encoder, Layers, Task, Teacher, TeacherFeatures, Tokenizer
from vq.io.kept_digest import KeptDigest
from vq.io.runs import Run, find, weight_files
from vq.io.weights import load_model_from
from vq.registries import VQTeacherRegistry
from vq.teachers.classifier import inner_parts


@runtime_checkable
class Classifies(Protocol):
    """The interface that a task needs to be a teacher."""

    dimension: int
    backbone: Encoder

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) float in [-1, 1] -> the backbone's map (B, C, h, w), input of the last layer (B, dimension)."""


@VQTeacherRegistry.register_()
class TrainedTeacher(KeptDigest, Teacher):
    """Its one layer is 'last': the map that a classifier pools, or the input of a tokenizer's quantizer.

    - ``classifier``: the trained task, as in its config. The pooled vector is the input of its last linear layer.
    - ``tokenizer``: the trained tokenizer, instead. The pooled vector is the mean over the cells; of a continuous tokenizer,
      the map is the mean of the latent.
    - ``weights``: the run, a checkpoint, or a file (see ``vq/io/runs.py``). Read by ``load_pretrained``; random until then.
    - ``image_size``: of its training, a number or (height, width).

    A target for another number of cells is the map of the image at ``image_size``, averaged over the pixels of a cell, or
    bilinear if there are more cells than in the map: small networks understand images of one size.

    A digest of the file goes into checkpoints in place of the weights: see ``KeptDigest``. ``trained_teacher`` takes all from
    a run.
    """

    noun = 'teacher'
    depth = 1

    def __init__(
        self,
        classifier: Task | None = None,
        tokenizer: Tokenizer | None = None,
        weights: str | None = None,
        image_size: int | tuple[int, int] = 256,
    ) -> None:
        super().__init__()
        if (classifier is None) == (tokenizer is None):
            raise ConfigError('TrainedTeacher needs a classifier or a tokenizer, and not both', 'Give one of them.')
        if classifier is not None and not isinstance(classifier, Classifies):
            raise ConfigError(f'{type(classifier).__name__} is no classifier', 'Give an ImageClassification as classifier.')
        self.classifier, self.tokenizer, self.weights = classifier, tokenizer, weights
        self.image_size = size_of(image_size)
        if isinstance(classifier, Classifies):
            self.width, self.dimension = classifier.backbone.out_channels, classifier.dimension
            self.patch_size = classifier.backbone.downsampling
        elif tokenizer is not None:
            latent = tokenizer.spec(self.image_size).latent
            if latent is None or len(latent.cells) != 2:
                raise ConfigError(f'{type(tokenizer).__name__} has no map of features', 'Take a tokenizer of a grid of cells.')
            quantizer = getattr(tokenizer, 'quantizer', None)
            self.width = self.dimension = latent.channels if quantizer is None else quantizer.feature_dim
            self.patch_size = self.image_size[0] // latent.cells[0]
        self.add_digest()
        self.requires_grad_(False)
        self.eval()

    def preprocess(self, image: Tensor) -> Tensor:
        return image

    def features(self, image: Tensor, layers: Layers = 'last') -> TeacherFeatures:
        self.channels(layers)
        if any(side % self.patch_size for side in image.shape[-2:]):
            height, width = image.shape[-2:]
            raise ConfigError(
                f'TrainedTeacher has cells of {self.patch_size} pixels and was given images of {height} x {width}',
                f'Give sides that are multiples of {self.patch_size}.',
            )
        if isinstance(self.classifier, Classifies):
            return TeacherFeatures(*self.classifier.features(image))
        assert self.tokenizer is not None
        patches = self.tokenizer.encode(image).mean
        return TeacherFeatures(patches, patches.mean((2, 3)))

    def channels(self, layers: Layers = 'last') -> int:
        if layers not in ('last', ['last']):
            raise ConfigError(f'layers is {layers!r}, and TrainedTeacher has one layer', "Give 'last'.")
        return self.width

    def resize(self, image: Tensor, cells: tuple[int, int]) -> Tensor:
        return _resized(image, (cells[0] * self.patch_size, cells[1] * self.patch_size))

    @torch.no_grad()
    def target(self, image: Tensor, cells: tuple[int, int], layers: Layers = 'last') -> Tensor:
        patches = self.features(_resized(image, self.image_size), layers).patches
        if patches.shape[-2:] == cells:
            return patches
        if all(wanted <= own for wanted, own in zip(cells, patches.shape[-2:], strict=True)):
            return F.adaptive_avg_pool2d(patches, cells)
        return F.interpolate(patches, cells, mode='bilinear')

    # weights

    def pretrained_files(self) -> list[Path]:
        files = [file for part in inner_parts(self._model()) for file in part.pretrained_files()]
        return [*weight_files(self.weights), *files]

    def load_pretrained(self) -> None:
        report = load_model_from(self._model(), [self._source()])
        self.keep_digest(report.sources[0].sha256, str(report.sources[0]))
        for part in inner_parts(self._model()):
            part.load_pretrained()

    def _model(self) -> Task:
        """The module whose names the weights have."""
        if self.classifier is not None:
            return self.classifier
        model = Task()
        model.tokenizer = self.tokenizer
        return model

    def _source(self) -> Run:
        if self.weights is None:
            raise UserError('the config has no weights for the teacher', "Give the teacher's run as weights.")
        return find(self.weights)


def trained_teacher(name: str | Path, trust: bool = False) -> TrainedTeacher:
    """The teacher, with weights, of a run of a classifier or tokenizer: its NAME, its folder, or one of its checkpoints.

    ``trust``: import the custom_imports of the run.
    """
    run = find(name, trust=trust)
    model, image = run.model, run.spec.image
    if image is None or 'generator' in model:
        raise UserError(f"'{name}' is no run of a classifier or tokenizer", 'Give the NAME of such a run.')
    import_modules(run.custom_imports)
    part = {'tokenizer': model['tokenizer']} if 'tokenizer' in model else {'classifier': model}
    teacher: TrainedTeacher = VQTeacherRegistry.build(
        {'type': 'TrainedTeacher', **part, 'weights': str(run.weights), 'image_size': tuple(image)}
    )
    teacher.load_pretrained()
    return teacher


def _resized(image: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image.float(), size, mode='bicubic', antialias=True, align_corners=False).clamp(-1, 1)
