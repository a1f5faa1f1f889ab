"""The convolutional decoder of VQGAN and its relatives."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from vq.interfaces import Decoder
from vq.nn.level import Level, check_levels, make_refine
from vq.nn.norms import AdaptiveGroupNorm, NormKind, make_norm
from vq.nn.resample import UpsampleKind, make_upsample
from vq.registries import VQDecoderRegistry


@VQDecoderRegistry.register_()
class ConvDecoder(Decoder):
    """code vectors (B, in_channels, h, w) -> image (B, out_channels, h * u, w * u).

    The mirror of ``ConvEncoder``, with its level numbers: ``multipliers`` and ``attention_levels`` are the encoder's, and
    the levels run from the last to the first. A 3x3 stem at the lowest resolution; refining blocks; per level
    ``residual_blocks`` blocks, then twice the resolution (not after level 0 unless ``resample_last``); norm, SiLU,
    convolution, and tanh if ``output`` says so.

    The defaults are VQGAN's f16 decoder (u = 16). SerezD's is ``multipliers=(1, 1, 2, 2), stem_multiplier=4,
    residual_blocks=2, attention_levels=(), refine_attention=False, resample_last=True, norm='group_unbiased',
    conv_bias=False, output='tanh'``, and ``upsample='repeat'`` in the models of its tables. Open-MAGVIT2's is
    ``residual_blocks=4, refine_blocks=4, attention_levels=(), refine_attention=False, upsample='depth_to_space',
    adaptive_norm=True, conv_bias=False``.

    - ``stem_multiplier``: multiplier of stem and refining blocks, by default that of the last level.
    - ``adaptive_norm``: before each level, a norm whose scale and shift are computed from statistics of the code vectors.
    - ``conv_bias``: whether residual blocks have biases; the other convolutions always do.
    - ``upsample``: 'nearest' repeats cells 2 x 2 and convolves, 'repeat' only repeats, 'depth_to_space' convolves to four
      times the channels and moves them to 2 x 2 cells.
    """

    def __init__(
        self,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 1, 2, 2, 4),
        residual_blocks: int = 3,
        attention_levels: tuple[int, ...] = (4,),
        refine: bool = True,
        refine_blocks: int = 2,
        refine_attention: bool = True,
        stem_multiplier: int | None = None,
        resample_last: bool = False,
        in_channels: int = 256,
        out_channels: int = 3,
        dropout: float = 0.0,
        norm: NormKind = 'group',
        norm_groups: int = 32,
        conv_bias: bool = True,
        output: Literal['linear', 'tanh'] = 'linear',
        upsample: UpsampleKind = 'nearest',
        adaptive_norm: bool = False,
    ) -> None:
        super().__init__()
        check_levels(multipliers, attention_levels, residual_blocks)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.output = output
        doublings = len(multipliers) - (not resample_last)
        self.upsampling = 2**doublings

        lowest = width * (multipliers[-1] if stem_multiplier is None else stem_multiplier)
        widths = [width * multiplier for multiplier in reversed(multipliers)]
        self.stem = nn.Conv2d(in_channels, lowest, 3, padding=1)
        self.refine = make_refine(
            lowest,
            refine_blocks if refine else 0,
            refine_attention,
            dropout=dropout,
            bias=conv_bias,
            norm=norm,
            norm_groups=norm_groups,
        )
        self.levels = nn.Sequential(
            *(
                Level(
                    before,
                    after,
                    residual_blocks,
                    attention=len(widths) - 1 - index in attention_levels,
                    dropout=dropout,
                    bias=conv_bias,
                    norm=norm,
                    norm_groups=norm_groups,
                    resample=make_upsample(after, upsample) if index < doublings else None,
                )
                for index, (before, after) in enumerate(zip([lowest, *widths], widths, strict=False))
            )
        )
        self.adaptive = nn.ModuleList(
            AdaptiveGroupNorm(in_channels, channels, norm_groups)
            for channels in ([lowest, *widths[:-1]] if adaptive_norm else [])
        )
        self.norm_out = make_norm(widths[-1], norm, norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def shard_blocks(self) -> list[nn.Module]:
        """The blocks that sharding strategies gather one at a time."""
        return [*self.levels, self.refine]

    def features(self, z: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, width, H, W)."""
        x = self.refine(self.stem(z))
        for index, level in enumerate(self.levels):
            x = level(self.adaptive[index](x, z) if len(self.adaptive) else x)
        return F.silu(self.norm_out(x))

    def project(self, features: Tensor) -> Tensor:
        image: Tensor = self.conv_out(features)
        return torch.tanh(image) if self.output == 'tanh' else image

    @torch.no_grad()
    def last_layer_gradients(self, features: Tensor, image: Tensor, gradients: Tensor) -> Tensor:
        """The n gradients are stacked as output channels of one convolution, so the features are read once."""
        if self.output == 'tanh':
            gradients = gradients * (1 - image.float().square())
        n, batch, channels, height, width = gradients.shape
        joined = gradients.transpose(0, 1).reshape(batch, n * channels, height, width).to(features.dtype)
        shape = (n * channels, *self.conv_out.weight.shape[1:])
        weight: Tensor = conv2d_weight(features, shape, joined, padding=1)  # type: ignore[no-untyped-call]
        return weight.float().view(n, channels, *shape[1:])
