"""The encoder of masked autoencoders, with its class token, and with masks in training."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Encoder, Teacher
from vq.registries import VQEncoderRegistry
from vq.teachers.timm_vit import TimmTeacher


class Seen(NamedTuple):
    """The output of a masked autoencoder's encoder."""

    cells: Tensor  # (B, C, h, w), zero where a cell was masked
    class_token: Tensor  # (B, C)
    mask: Tensor | None  # (B, 1, h, w) bool, true where a cell was masked; None: all cells were seen


@VQEncoderRegistry.register_()
class MAEEncoder(Encoder):
    """image (B, 3, H, W) -> the vectors of the patches after the last norm (B, C, h, w) (He et al. 2022).

    With a ``mask_ratio`` r, in training, N - floor(N (1 - r)) of the N patches of an image are left out of the network, drawn
    anew for each image; in evaluation none is. With r = 0 all patches are seen, in their order.

    - ``teacher``: a ``MAETeacher``, or another plain vision transformer of timm.
    - ``train_encoder``: whether its weights are trained; position embeddings never are. Checkpoints then contain it.
    """

    def __init__(self, teacher: Teacher, mask_ratio: float = 0.0, train_encoder: bool = False) -> None:
        super().__init__()
        if not isinstance(teacher, TimmTeacher):
            raise ConfigError(
                f'MAEEncoder runs on a part of the patches, and {type(teacher).__name__} takes whole images',
                "Give dict(type='MAETeacher'), or take a RepresentationEncoder.",
            )
        if not 0 <= mask_ratio < 1:
            raise ConfigError(f'mask_ratio is {mask_ratio}', 'Give the share of masked patches, from 0 to below 1.')
        self.teacher, self.mask_ratio = teacher, mask_ratio
        self.out_channels, self.downsampling = teacher.width, teacher.patch_size
        self.pixel_mean, self.pixel_deviation = teacher.normalisation
        if train_encoder:
            teacher.frozen = False
            teacher.requires_grad_(True)
            network: Any = teacher.network
            network.pos_embed.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        return self.see(image).cells

    def see(self, image: Tensor, noise: Tensor | None = None) -> Seen:
        """``noise`` (B, N): the patches with the smallest numbers are seen; None: drawn by torch's generator."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.teacher.frozen):
            return self._see(image, noise)

    def _see(self, image: Tensor, noise: Tensor | None) -> Seen:
        teacher = self.teacher
        assert isinstance(teacher, TimmTeacher)
        network: Any = teacher.network
        patches = network.patch_embed.proj(teacher.preprocess(image))  # (B, C, h, w)
        batch, channels, height, width = patches.shape
        positions = teacher.resized(network.pos_embed, height, width)
        tokens = patches.flatten(2).transpose(1, 2) + positions[:, 1:]  # (B, N, C)
        count = tokens.shape[1]
        order = None
        if self.training and self.mask_ratio:
            noise = torch.rand(batch, count, device=tokens.device) if noise is None else noise
            order = noise.argsort(1)[:, : max(1, int(count * (1 - self.mask_ratio)))]  # (B, seen)
            tokens = tokens.gather(1, order[..., None].expand(-1, -1, channels))
        first = (network.cls_token + positions[:, :1]).expand(batch, -1, -1)
        if network.reg_token is not None:
            first = torch.cat([first, network.reg_token.expand(batch, -1, -1)], 1)
        tokens = torch.cat([first, tokens], 1)
        for block in network.blocks:
            tokens = block(tokens)
        tokens = network.norm(tokens)
        seen, mask = tokens[:, first.shape[1] :], None
        if order is not None:
            place = order[..., None]
            mask = torch.ones(batch, count, 1, device=seen.device, dtype=torch.bool).scatter(1, place, False)
            seen = seen.new_zeros(batch, count, channels).scatter(1, place.expand(-1, -1, channels), seen)
            mask = mask.view(batch, 1, height, width)
        return Seen(seen.transpose(1, 2).reshape(batch, channels, height, width), tokens[:, 0], mask)
