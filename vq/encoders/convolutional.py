"""The convolutional encoder of VQGAN and its relatives."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.interfaces import Encoder
from vq.nn.level import Level, check_levels, make_refine
from vq.nn.norms import NormKind, make_norm
from vq.nn.resample import DownsampleKind, make_downsample
from vq.registries import VQEncoderRegistry


@VQEncoderRegistry.register_()
class ConvEncoder(Encoder):
    """image (B, in_channels, H, W) -> features (B, out_channels, H / d, W / d).

    A 3x3 stem; per level ``residual_blocks`` blocks of ``width * multiplier`` channels, then half the resolution (not
    after the last level unless ``resample_last``); refining blocks at the lowest resolution; norm, SiLU, convolution.

    The defaults are VQGAN's f16 encoder (d = 16); multipliers (1, 1, 2, 4) with attention level 3 give f8. SerezD's is
    ``multipliers=(1, 2, 2, 4), attention_levels=(), refine_attention=False, downsample='average', resample_last=True,
    norm='group_unbiased', conv_bias=False, out_kernel_size=1``.

    Open-MAGVIT2's is ``residual_blocks=4, refine_blocks=4, attention_levels=(), refine_attention=False, downsample='strided',
    conv_bias=False, out_kernel_size=1``.

    - ``attention_levels``: levels, counted from 0 at full resolution, with attention after each residual block.
    - ``refine``, ``refine_blocks``, ``refine_attention``: residual blocks at the lowest resolution, attention between.
    - ``conv_bias``: whether the stem and the residual blocks have biases; the other convolutions always do.
    - ``norm_groups``: groups of the norms; for a width that this does not divide, the next smaller number that does.
    """

    def __init__(
        self,
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 1, 2, 2, 4),
        residual_blocks: int = 2,
        attention_levels: tuple[int, ...] = (4,),
        refine: bool = True,
        refine_blocks: int = 2,
        refine_attention: bool = True,
        downsample: DownsampleKind = 'conv',
        resample_last: bool = False,
        in_channels: int = 3,
        out_channels: int = 256,
        dropout: float = 0.0,
        norm: NormKind = 'group',
        norm_groups: int = 32,
        conv_bias: bool = True,
        out_kernel_size: int = 3,
    ) -> None:
        super().__init__()
        check_levels(multipliers, attention_levels, residual_blocks)
        self.in_channels = in_channels
        self.out_channels = out_channels
        halvings = len(multipliers) - (not resample_last)
        self.downsampling = 2**halvings

        widths = [width * multiplier for multiplier in multipliers]
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=conv_bias)
        self.levels = nn.Sequential(
            *(
                Level(
                    before,
                    after,
                    residual_blocks,
                    attention=index in attention_levels,
                    dropout=dropout,
                    bias=conv_bias,
                    norm=norm,
                    norm_groups=norm_groups,
                    resample=make_downsample(after, downsample) if index < halvings else None,
                )
                for index, (before, after) in enumerate(zip([width, *widths], widths, strict=False))
            )
        )
        self.refine = make_refine(
            widths[-1],
            refine_blocks if refine else 0,
            refine_attention,
            dropout=dropout,
            bias=conv_bias,
            norm=norm,
            norm_groups=norm_groups,
        )
        self.norm_out = make_norm(widths[-1], norm, norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, out_kernel_size, padding=out_kernel_size // 2)

    def shard_blocks(self) -> list[nn.Module]:
        """The blocks that sharding strategies gather one at a time."""
        return [*self.levels, self.refine]

    def forward(self, image: Tensor) -> Tensor:
        h = self.refine(self.levels(self.stem(image)))
        features: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return features
