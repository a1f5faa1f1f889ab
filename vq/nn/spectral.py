"""A convolution over tokens whose weight is divided by its largest singular value."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.nn.precision import no_autocast

EPS = 1e-12
FIRST_STEPS = 15  # of power iteration, on new weights


class SpectralConv1d(nn.Module):
    """y = (W / sigma) * x + b,  (B, C, L) -> (B, C', L);  sigma: the largest singular value of W as a matrix (C', C k).

        u <- W v / |W v|,  v <- W^T u / |W^T u|,  sigma = u^T W v

    (Miyato et al. 2018.) One step of power iteration in every training forward. u and v get no gradient and are stored, so
    eval and a resumed run use those of the last step. They depend on the weight alone: ranks with equal weights have equal u
    and v. sigma is fp32, also under autocast. The sequence is padded circularly, so that every position sees k others.
    """

    u: Tensor  # (C',)
    v: Tensor  # (C k,)

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.register_buffer('u', torch.empty(out_channels))
        self.register_buffer('v', torch.empty(in_channels * kernel_size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weight and bias as in ``nn.Conv1d``; also called after a move off the meta device."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)
        if self.weight.is_meta:  # no values to iterate, which would take a fifth of the time to build a discriminator
            return
        for vector in (self.u, self.v):
            vector.copy_(F.normalize(torch.randn_like(vector), dim=0, eps=EPS))
        for _ in range(FIRST_STEPS):
            self._iterate(self.weight.flatten(1))

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.u.copy_(F.normalize(torch.mv(matrix, self.v), dim=0, eps=EPS))
        self.v.copy_(F.normalize(torch.mv(matrix.t(), self.u), dim=0, eps=EPS))

    def normalised(self) -> Tensor:
        """W / sigma, fp32."""
        with no_autocast(self.weight.device):
            matrix = self.weight.float().flatten(1)
            if self.training:
                self._iterate(matrix)
            # copies: the next forward changes u and v before the backward of this one
            sigma = torch.dot(self.u.clone(), torch.mv(matrix, self.v.clone()))
            return self.weight / sigma

    def forward(self, x: Tensor) -> Tensor:
        if self.padding:
            x = F.pad(x, (self.padding, self.padding), mode='circular')
        return F.conv1d(x, self.normalised(), self.bias)
