"""The learned perceptual distance LPIPS, as a loss: frozen networks from local files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vq.core.errors import UserError, listing
from vq.interfaces import Loss, Pretrained
from vq.io.pretrained import pretrained_file, pretrained_root
from vq.io.values import check_values
from vq.io.weights import read_weights
from vq.nn.perceptual_backbones import perceptual_backbone
from vq.nn.precision import no_autocast
from vq.registries import VQLossRegistry

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1], per colour
EPS = 1e-10  # added to a norm, outside the root

BACKBONE_FILES = {
    'vgg': 'torchvision/vgg16-397923af.pth',
    'alex': 'torchvision/alexnet-owt-7be5be79.pth',
    'squeeze': 'torchvision/squeezenet1_1-b8a52dc0.pth',
}
HEADS_FILES = {net: f'lpips/{net}.pth' for net in BACKBONE_FILES}

_BACKBONE_KEY = re.compile(r'features\.(.+)')
# of the lpips package and of taming (lin0.model.1.weight), or converted for the reference toolkit (0.weight)
_HEAD_KEY = re.compile(r'(?:lin(?:s\.)?)?(\d+)\.(?:model\.\d+\.)?weight')


@VQLossRegistry.register_()
class LPIPSLoss(Loss, Pretrained):
    """Mean over images of d(x, y) = sum_l mean_hw sum_c w_lc (u_lc(x) - u_lc(y))^2, images in [-1, 1] (Zhang et al., 2018).

    u_l is activation l of a frozen network on (image - shift) / scale, divided at each place by its norm over channels;
    w_l >= 0 is learned from human judgement. There is no dropout, and the target gets no gradient. The network runs under
    the caller's autocast, everything after the network in fp32. Weights are random until ``load_pretrained``.
    """

    shift: Tensor  # (1, 3, 1, 1), as is scale
    scale: Tensor

    compiles = 'forward'

    def __init__(
        self,
        weight: float = 1.0,
        net: Literal['vgg', 'alex', 'squeeze'] = 'vgg',
        backbone_file: str | None = None,
        heads_file: str | None = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.net = net
        self.backbone = perceptual_backbone(net)
        self.backbone_file = backbone_file or BACKBONE_FILES[net]
        self.heads_file = heads_file or HEADS_FILES[net]
        self.heads = nn.ParameterList(torch.rand(1, channels, 1, 1) for channels in self.backbone.channels)
        self.register_buffer('shift', torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('scale', torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> LPIPSLoss:
        """Frozen: always in eval mode."""
        super().train(False)
        return self

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.distance(prediction, target).mean()

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each pair of images, (B,) fp32; both (B, 3, H, W) in [-1, 1]."""
        self._check(prediction, target)
        # both images run stage by stage, so that only one activation of the target is held
        features = self._standardise(prediction)
        with torch.no_grad():
            goal = self._standardise(target)
        total = features.new_zeros(features.shape[0])
        for stage, head in enumerate(self.heads):
            with torch.no_grad():
                goal = self.backbone.advance(goal, stage)
            features = self.backbone.advance(features, stage)
            total = total + _Difference.apply(features, goal, head)  # type: ignore[no-untyped-call]
        return total

    def _standardise(self, image: Tensor) -> Tensor:
        """To the network's input range, fp32. Written as in the lpips package: a different last bit can flip a ReLU or max."""
        return (image - self.shift) / self.scale

    def _check(self, prediction: Tensor, target: Tensor) -> None:
        if prediction.shape != target.shape:
            raise ValueError(f'LPIPS compares images of equal shape, not {tuple(prediction.shape)} and {tuple(target.shape)}')
        height, width = prediction.shape[-2:]
        if min(height, width) < self.backbone.smallest:
            raise UserError(
                f"images of {height} x {width} are too small for LPIPS with net='{self.net}'",
                f'Use images of at least {self.backbone.smallest} x {self.backbone.smallest}, or leave the loss out.',
            )

    def pretrained_files(self) -> list[Path]:
        return [pretrained_root() / self.backbone_file, pretrained_root() / self.heads_file]

    def load_pretrained(self) -> None:
        backbone, heads = pretrained_file(self.backbone_file), pretrained_file(self.heads_file)
        _fill(
            backbone,
            self.backbone.state_dict(),
            *_renamed(read_weights(backbone)[0], _BACKBONE_KEY, ignored=('classifier.',)),
            f'{backbone} is not the network that LPIPS with net={self.net!r} needs',
            f'Give the weights of {Path(BACKBONE_FILES[self.net]).name}, from torchvision, as backbone_file.',
        )
        _fill(
            heads,
            self.heads.state_dict(),
            *_renamed(read_weights(heads)[0], _HEAD_KEY, ignored=('net.', 'scaling_layer.')),
            f'{heads} does not hold the linear heads of LPIPS with net={self.net!r}',
            f"Give {Path(HEADS_FILES[self.net]).name} of the lpips package's version 0.1 as heads_file.",
        )


class _Difference(torch.autograd.Function):
    """features a, goal b (B, C, h, w), head w (1, C, 1, 1) -> mean_hw sum_c w_c (a_c / |a| - b_c / |b|)^2, (B,) fp32.

    Backward keeps only a and e = a / |a| - b / |b|, in the precision of a. With p_c = 2 w_c e_c / hw:
    d/da_c = (p_c - a_c / |a| * sum_k p_k a_k / |a|) / |a|. Where |a| is zero the gradient is taken as zero.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, goal: Tensor, head: Tensor) -> Tensor:
        with no_autocast(features.device):
            norm = _norm(features, 1)  # (B, 1, h, w)
            # mixed precisions are widened inside the kernels, without copies
            error = features * (norm + EPS).reciprocal_()
            error.addcmul_(goal, (_norm(goal, 1) + EPS).reciprocal_(), value=-1)
            ctx.save_for_backward(features, error.to(features.dtype), norm, head)
            per_channel = _norm(error, (2, 3)).square()  # (B, C, 1, 1)
            return (per_channel * head).sum((1, 2, 3)) / norm[0].numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        features, error, norm, head = ctx.saved_tensors
        with no_autocast(features.device):
            slope = error * (upstream.view(-1, 1, 1, 1) * head * (2 / norm[0].numel()))  # upstream * p, (B, C, h, w) fp32
            along = (slope * features).sum(1, keepdim=True)  # (B, 1, h, w)
            zero = norm == 0
            inverse = (norm + EPS).reciprocal_().masked_fill_(zero, 0)
            along *= -norm.reciprocal().masked_fill_(zero, 0) * inverse * inverse
            return slope.mul_(inverse).addcmul_(features, along).to(features.dtype), None, None


def _norm(values: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """Euclidean norm over ``dims`` in fp32 at least, dimensions kept."""
    precision = torch.promote_types(values.dtype, torch.float32)
    if values.is_cpu:  # on a CPU vector_norm is up to 15 times as slow, unless the dimension is contiguous
        return values.to(precision).square().sum(dims, keepdim=True).sqrt_()
    norm: Tensor = torch.linalg.vector_norm(values, dim=dims, keepdim=True, dtype=precision)
    return norm


def _renamed(
    tensors: Mapping[str, Tensor], key: re.Pattern[str], ignored: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by group 1 of ``key`` in their names; and names that neither match ``key`` nor start with ``ignored``."""
    found: dict[str, Tensor] = {}
    odd = []
    for name, value in tensors.items():
        match = key.fullmatch(name)
        if match is not None:
            found[match[1]] = value
        elif not name.startswith(ignored):
            odd.append(name)
    return found, odd


@torch.no_grad()
def _fill(
    source: Path, own: Mapping[str, Tensor], found: Mapping[str, Tensor], odd: Iterable[str], message: str, hint: str
) -> None:
    """Copy ``found`` into ``own``. The keys and shapes of both must be equal, and ``odd`` keys are an error."""
    shapes = [
        f'{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}'
        for name, value in own.items()
        if name in found and found[name].shape != value.shape
    ]
    problems = {
        'missing': [name for name in own if name not in found],
        'unknown': [*odd, *(name for name in found if name not in own)],
        'of another shape': shapes,
    }
    if any(problems.values()):
        lines = [f'{what}: {listing(names, most=4)}' for what, names in problems.items() if names]
        raise UserError('\n  '.join([message, *lines]), hint)
    check_values(found, own, str(source))
    for name, value in own.items():
        value.copy_(found[name])
