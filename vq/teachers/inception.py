"""The Inception network of the Frechet inception distance: TensorFlow's weights of 2015, from pytorch-fid's file.

Three optimizations, after which features differ from the published network's by rounding alone: batch norms are folded into
convolutions when weights are loaded; tensors are channels last; and a 1x1 convolution after an average pool runs before the
pool, on fewer channels. The two commute, since both are linear and the pool does not count padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError, listing
from vq.interfaces import FeatureNetwork, Features
from vq.io.pretrained import pretrained_file, pretrained_root
from vq.io.values import check_values
from vq.io.weights import read_weights
from vq.nn.legacy_resize import resize_like_tensorflow
from vq.nn.precision import exact_products, no_autocast
from vq.registries import VQFeatureNetworkRegistry

FILE = 'pytorch-fid/pt_inception-2015-12-05-6726825d.pth'
SIZE = 299
BN_EPS = 1e-3
SPATIAL_CHANNELS = 7  # of the first branch of Mixed_6d: 17 x 17 x 7 numbers for sFID (Nash et al. 2021)

Shape = int | tuple[int, int]


class Conv(nn.Module):
    """relu(W * x + b): a convolution with its batch norm folded in."""

    def __init__(self, channels: int, out_channels: int, kernel: Shape = 1, stride: int = 1, padding: Shape = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv(x))

    @torch.no_grad()
    def fold(self, weight: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> None:
        """W' = W g / sqrt(v + eps), b' = s - m g / sqrt(v + eps), computed in float64."""
        gain = scale.double() / torch.sqrt(variance.double() + BN_EPS)
        self.conv.weight.copy_(weight.double() * gain.view(-1, 1, 1, 1))
        assert self.conv.bias is not None
        self.conv.bias.copy_(shift.double() - mean.double() * gain)


class PooledConv(Conv):
    """relu(W * average3x3(x) + b), computed with the pool after the convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(F.avg_pool2d(self.conv(x), 3, 1, 1, count_include_pad=False))


class MaxPooledConv(Conv):
    """relu(W * max3x3(x) + b), as in the last block of TensorFlow's graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.max_pool2d(x, 3, 1, 1))


class MixedA(nn.Module):
    """Block at 35 x 35."""

    def __init__(self, channels: int, pool_channels: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 64)
        self.branch5x5_1, self.branch5x5_2 = Conv(channels, 48), Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(channels, 64), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = PooledConv(channels, pool_channels)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(x)], 1)


class MixedB(nn.Module):
    """Downsampling from 35 x 35 to 17 x 17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(channels, 64), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    """Block at 17 x 17."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 192)
        self.branch7x7_1 = Conv(channels, inner)
        self.branch7x7_2, self.branch7x7_3 = _row(inner, inner), _column(inner, 192)
        self.branch7x7dbl_1 = Conv(channels, inner)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = _column(inner, inner), _row(inner, inner)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = _column(inner, inner), _row(inner, 192)
        self.branch_pool = PooledConv(channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(x)], 1)


class MixedD(nn.Module):
    """Downsampling from 17 x 17 to 8 x 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(channels, 192), Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(channels, 192), _row(192, 192)
        self.branch7x7x3_3, self.branch7x7x3_4 = _column(192, 192), Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    """Block at 8 x 8, with an average pool or, in the last block of the network, a max pool."""

    def __init__(self, channels: int, pooled: type[Conv]) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 320)
        self.branch3x3_1 = Conv(channels, 384)
        self.branch3x3_2a, self.branch3x3_2b = _row(384, 384, 3), _column(384, 384, 3)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(channels, 448), Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _row(384, 384, 3), _column(384, 384, 3)
        self.branch_pool = pooled(channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        return torch.cat([*parts, self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(x)], 1)


def _row(channels: int, out_channels: int, length: int = 7) -> Conv:
    return Conv(channels, out_channels, (1, length), padding=(0, length // 2))


def _column(channels: int, out_channels: int, length: int = 7) -> Conv:
    return Conv(channels, out_channels, (length, 1), padding=(length // 2, 0))


class Maps(NamedTuple):
    """Intermediate feature maps, channels last."""

    blocks: tuple[Tensor, Tensor, Tensor]  # 64, 192 and 768 channels, from the last layer of each resolution
    spatial: Tensor  # (B, 7, 17, 17)
    final: Tensor  # (B, 2048, 8, 8)


@VQFeatureNetworkRegistry.register_()
class FIDInception(FeatureNetwork):
    """uint8 images -> 2048 pooled features, 1008 logits, 17 x 17 x 7 spatial features.

    ``preprocessing`` selects how images are resized to 299 x 299 and scaled to [-1, 1]; figures of the two cannot be compared:

    - 'tensorflow': bilinear as in TensorFlow 1 (pixel corners aligned at the top left), then (x - 128) / 128. As in the
      definition of FID, ADM's evaluator and torch-fidelity.
    - 'pytorch_fid': x / 255, bilinear between pixel centres, then 2 x - 1. As in the package pytorch-fid.

    ``precision`` 'bf16' is faster and changes features by about 4e-3; every result records it. Logits are without the
    bias, as in the reference implementation of the Inception Score. Until ``load_pretrained`` weights are random.
    """

    dimension = 2048

    def __init__(
        self,
        preprocessing: Literal['tensorflow', 'pytorch_fid'] = 'tensorflow',
        precision: Literal['fp32', 'bf16'] = 'fp32',
        file: str = FILE,
    ) -> None:
        super().__init__()
        if preprocessing not in ('tensorflow', 'pytorch_fid') or precision not in ('fp32', 'bf16'):
            raise ConfigError(
                f"FIDInception with preprocessing '{preprocessing}' and precision '{precision}'",
                "preprocessing is 'tensorflow' or 'pytorch_fid', precision 'fp32' or 'bf16'.",
            )
        self.preprocessing, self.precision, self.file = preprocessing, precision, file
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d = MixedC(768, 128), MixedC(768, 160), MixedC(768, 160)
        self.Mixed_6e = MixedC(768, 192)
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b, self.Mixed_7c = MixedE(1280, PooledConv), MixedE(2048, MaxPooledConv)
        self.fc = nn.Linear(2048, 1008, bias=False)
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval()

    @property
    def description(self) -> dict[str, str]:
        return {'network': 'FIDInception', 'preprocessing': self.preprocessing, 'precision': self.precision}

    def prepare(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> the network's input, fp32 (B, 3, 299, 299), channels last."""
        x = image.float()
        if self.preprocessing == 'tensorflow':
            x = (resize_like_tensorflow(x, SIZE) - 128) / 128
        else:
            x = 2 * F.interpolate(x / 255, (SIZE, SIZE), mode='bilinear', align_corners=False) - 1
        return x.contiguous(memory_format=torch.channels_last)

    def maps(self, x: Tensor) -> Maps:
        first = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        first = F.max_pool2d(first, 3, 2)
        second = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(first)), 3, 2)
        third = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(second))))))
        third = self.Mixed_6d(third)
        spatial = third[:, :SPATIAL_CHANNELS]  # the first branch comes first
        third = self.Mixed_6e(third)
        return Maps((first, second, third), spatial, self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(third))))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ConfigError(
                f'Inception was given {image.dtype} of the shape {tuple(image.shape)}',
                'Give uint8 images (B, 3, H, W): the range of floats is ambiguous. Repeat the channel of gray images 3 times.',
            )
        half = torch.autocast(image.device.type, torch.bfloat16, enabled=self.precision == 'bf16')
        with exact_products(), no_autocast(image.device), half:
            maps = self.maps(self.prepare(image))
        with exact_products(), no_autocast(image.device):
            pooled = maps.final.float().mean((2, 3))
            return Features(pooled, self.fc(pooled), maps.spatial.float().flatten(1))

    def pretrained_files(self) -> list[Path]:
        return [pretrained_root() / self.file]

    def load_pretrained(self) -> None:
        file = pretrained_file(self.file)
        self.fill(read_weights(file)[0], str(file))

    def fill(self, published: dict[str, Tensor], source: str) -> None:
        """Load the weights of pytorch-fid's file, by parameter names."""
        convolutions = {name: module for name, module in self.named_modules() if isinstance(module, Conv)}
        leaves = ('conv.weight', 'bn.weight', 'bn.bias', 'bn.running_mean', 'bn.running_var')
        wanted = {'fc.weight': self.fc.weight.shape}
        for name, module in convolutions.items():
            width = module.conv.weight.shape[:1]
            wanted |= {f'{name}.{leaf}': width for leaf in leaves[1:]} | {f'{name}.{leaves[0]}': module.conv.weight.shape}
        odd = [
            name if name not in published else f'{name} of the shape {tuple(published[name].shape)}'
            for name, shape in wanted.items()
            if name not in published or published[name].shape != shape
        ]
        if odd:
            raise UserError(
                f'{source} is not the Inception network of FID\n  missing, or of another shape: {listing(odd, most=4)}',
                f'Give {Path(FILE).name} of pytorch-fid: python -m vq.tools.prepare_checkpoints pytorch-fid',
            )
        check_values({name: published[name] for name in wanted}, dict.fromkeys(wanted, self.fc.weight), source)
        for name, module in convolutions.items():
            module.fold(*(published[f'{name}.{leaf}'] for leaf in leaves))
        with torch.no_grad():
            self.fc.weight.copy_(published['fc.weight'])
