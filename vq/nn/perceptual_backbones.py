"""The convolutional stacks whose activations LPIPS compares: torchvision's VGG-16, AlexNet and SqueezeNet 1.1.

The classifier and the layers after the last activation are not built. Layers have the numbers of torchvision, so a key
``features.N.weight`` of its files is ``N.weight`` here. No weights are downloaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError, listing


class PerceptualBackbone(nn.Sequential):
    """image (B, 3, H, W), standardised -> the activations after the layers ``taps``, (B, channels[i], h_i, w_i) each.

    ReLUs work in place: no layer after a tap writes to its input, and no layer keeps what a ReLU overwrites.
    """

    def __init__(self, layers: list[nn.Module], taps: tuple[int, ...], channels: tuple[int, ...], smallest: int) -> None:
        super().__init__(*layers[: taps[-1] + 1])
        self.taps = taps
        self.channels = channels
        self.smallest = smallest  # the least height and width for which the last layer has an output
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # torch's default shrinks activations at each layer, until only biases matter
                nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # NHWC weights give NHWC activations: a sixth less time on a CPU, and the layout that tensor cores read
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def advance(self, features: Tensor, stage: int) -> Tensor:
        """The output of stage number ``stage`` from the output of the stage before (the image for the first)."""
        start = self.taps[stage - 1] + 1 if stage else 0
        for layer in range(start, self.taps[stage] + 1):
            features = self[layer](features)
        return features

    def forward(self, image: Tensor) -> list[Tensor]:  # type: ignore[override]  # nn.Sequential gives one tensor
        activations = [image]
        for stage in range(len(self.taps)):
            activations.append(self.advance(activations[-1], stage))
        return activations[1:]


def _vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return layers


def _alexnet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(3, stride=2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(3, stride=2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)),
    ]


class Fire(nn.Module):
    """SqueezeNet's block (B, channels, H, W) -> (B, width, H, W): a narrow map, from which 1x1 and 3x3 convolutions each make
    half of the channels.

    The names are those of torchvision, which is not imported: its import takes longer than a small validation.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, width // 8, 1)
        self.expand1x1 = nn.Conv2d(width // 8, width // 2, 1)
        self.expand3x3 = nn.Conv2d(width // 8, width // 2, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        narrow = self.squeeze(features).relu_()
        return torch.cat([self.expand1x1(narrow).relu_(), self.expand3x3(narrow).relu_()], dim=1)


def _squeezenet() -> list[nn.Module]:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return [
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(inplace=True)),
        *(pool(), Fire(64, 128), Fire(128, 128)),
        *(pool(), Fire(128, 256), Fire(256, 256)),
        *(pool(), Fire(256, 384), Fire(384, 384), Fire(384, 512), Fire(512, 512)),
    ]


@dataclasses.dataclass(frozen=True)
class _Kind:
    layers: Callable[[], list[nn.Module]]
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    smallest: int


KINDS: Mapping[str, _Kind] = {
    'vgg': _Kind(_vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
    'alex': _Kind(_alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
    'squeeze': _Kind(_squeezenet, (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512), 17),
}


def perceptual_backbone(net: str) -> PerceptualBackbone:
    """``vgg``, ``alex`` or ``squeeze`` with weights drawn from torch's generator."""
    if net not in KINDS:
        raise ConfigError(f"there is no perceptual network '{net}'", f'Choose one of: {listing(KINDS)}.')
    kind = KINDS[net]
    return PerceptualBackbone(kind.layers(), kind.taps, kind.channels, kind.smallest)
