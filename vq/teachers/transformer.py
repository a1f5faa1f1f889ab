"""What the families of vision transformers share: normalisation, choice of layers, patch maps, reading of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, listing
from vq.interfaces import FeatureNetwork, Features
from vq.interfaces.teachers import Layers, Teacher, TeacherFeatures
from vq.io.pretrained import pretrained_file, pretrained_root
from vq.io.values import fill_exactly
from vq.io.weights import read_weights
from vq.nn.precision import exact_matmul, no_autocast

_SUM = re.compile(r'sum_of_last_([1-9]\d*)')


class Tokens(NamedTuple):
    """The tokens (B, prefix + h * w, C) of a forward."""

    blocks: dict[int, Tensor]  # after each block that was asked for
    last: Tensor  # after the last block and the final norm
    pooled: Tensor  # (B, D)


class TransformerTeacher(Teacher):
    """A vision transformer of another package. A family says how it is built, run, and filled.

    - ``image_size``: of its training, and of metrics; other sizes need other positions.
    - ``file``: its weights, below the folder of pretrained files. Random until ``load_pretrained``.
    """

    prefix: int = 1  # tokens before those of the patches
    MEAN: ClassVar[tuple[float, float, float]]  # of the training images, for values in [0, 1]
    STD: ClassVar[tuple[float, float, float]]
    named: ClassVar[tuple[str, ...]] = ()  # layers that only this family has
    extra: ClassVar[str] = 'features'  # of this toolkit, the one that brings the network's package

    mean: Tensor  # (1, 3, 1, 1), like std; for 8-bit values
    std: Tensor

    def __init__(
        self, dimension: int, width: int, depth: int, heads: int, image_size: int, patch_size: int, file: str
    ) -> None:
        super().__init__()
        if image_size % patch_size or width % heads:
            raise ConfigError(
                f'{type(self).__name__} with images of {image_size} pixels and {heads} heads for {width} channels',
                f'Give an image_size that {patch_size} divides, and heads that divide the width.',
            )
        self.dimension, self.width, self.depth, self.image_size = dimension, width, depth, image_size
        self.patch_size, self.file = patch_size, file
        try:
            self.network = self.make(heads)
        except ImportError as error:
            raise ConfigError(
                f'{type(self).__name__} needs the package {error.name}, which is not installed',
                f"pip install 'vq[{self.extra}]'",
            ) from error
        for name, values in (('mean', self.MEAN), ('std', self.STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    # of a family

    def make(self, heads: int) -> nn.Module:
        """The network with random weights, from the attributes above."""
        raise NotImplementedError

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        """The network on a normalised input. Positions are resized as the family's authors do."""
        raise NotImplementedError

    def select(self, name: str, tokens: Tokens) -> Tensor:
        """The tokens of one of the layers in ``named``."""
        raise NotImplementedError

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the published file, by the names and in the shapes of ``network``."""
        raise NotImplementedError

    # the contract

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.MEAN, self.STD

    def preprocess(self, image: Tensor) -> Tensor:
        return self.normalise((image.float() + 1) * 127.5)

    def normalise(self, levels: Tensor) -> Tensor:
        """8-bit values, as integers or floats -> (levels - mean) / std, fp32."""
        return (levels.float() - self.mean) / self.std

    def features(self, image: Tensor, layers: Layers = 'last') -> TeacherFeatures:
        height, width = image.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ConfigError(
                f'{type(self).__name__} has patches of {self.patch_size} pixels and was given images of {height} x {width}',
                f'Give sides that are multiples of {self.patch_size}; ``resize`` makes a map of any number of cells.',
            )
        blocks, added = chosen(layers, self.depth, self.named)
        tokens = self.run(self.preprocess(image), blocks)
        if blocks:
            found = [tokens.blocks[block] for block in blocks]
            taken = torch.stack(found).sum(0) if added else torch.cat(found, -1)
        else:
            taken = tokens.last if layers == 'last' else self.select(str(layers), tokens)
        patches = taken[:, self.prefix :].transpose(1, 2)  # (B, C, h * w)
        return TeacherFeatures(patches.reshape(*patches.shape[:2], height // self.patch_size, -1), tokens.pooled)

    def channels(self, layers: Layers = 'last') -> int:
        blocks, added = chosen(layers, self.depth, self.named)
        return self.width * (1 if added or not blocks else len(blocks))

    def resize(self, image: Tensor, cells: tuple[int, int]) -> Tensor:
        size = (cells[0] * self.patch_size, cells[1] * self.patch_size)
        if image.shape[-2:] == size:
            return image
        return F.interpolate(image.float(), size, mode='bicubic', antialias=True, align_corners=False).clamp(-1, 1)

    # files

    def pretrained_files(self) -> list[Path]:
        return [pretrained_root() / self.file]

    def load_pretrained(self) -> None:
        file = pretrained_file(self.file)
        self.fill(read_weights(file)[0], str(file))

    def fill(self, published: Mapping[str, Tensor], source: str) -> None:
        """Load the weights of the published file, by parameter names."""
        what = f'{type(self).__name__} of {self.dimension} features and {self.depth} layers'
        fill_exactly(self.network, self.renamed(published), source, what, Path(self.file).name)


def chosen(layers: Layers, depth: int, named: Iterable[str] = ()) -> tuple[tuple[int, ...], bool]:
    """The blocks whose outputs ``layers`` needs, and whether they are added; none for 'last' and the names in ``named``."""
    if isinstance(layers, str):
        if layers in ('last', *named):
            return (), False
        several = _SUM.fullmatch(layers)
        wanted = [depth - 2] if layers == 'penultimate' else [*range(depth - int(several[1]), depth)] if several else []
    else:
        several, wanted = None, [layers] if isinstance(layers, int) else list(layers)
        wanted = [number + depth if number < 0 else number for number in wanted]
    if not wanted or not all(0 <= number < depth for number in wanted):
        names = listing(['last', 'penultimate', 'sum_of_last_K', *named])
        raise ConfigError(f'layers is {layers!r}, of a network of {depth} layers', f'Give {names}, or numbers of layers.')
    return tuple(wanted), several is not None


class TeacherNetwork(FeatureNetwork):
    """The face of a teacher for metrics, beside the class of the teacher: uint8 images -> its pooled vector in fp32.

    ``prepare`` is the recipe of a published figure, from images of any size to the network's input.
    """

    def prepare(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> the network's input, fp32."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        assert isinstance(self, TransformerTeacher)
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ConfigError(
                f'{type(self).__name__} was given {image.dtype} of the shape {tuple(image.shape)}',
                'Give uint8 images (B, 3, H, W).',
            )
        with no_autocast(image.device), exact_matmul():
            return Features(self.run(self.prepare(image)).pooled.float())
