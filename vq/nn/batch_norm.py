"""Batch norm for discriminators: torch's formula, optional statistics over all ranks, finite running statistics."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core import collectives
from vq.core.errors import UserError
from vq.nn.lazy_tensors import is_lazy, normalize_by_statistics
from vq.nn.precision import no_autocast


class BatchNorm(nn.Module):
    """y = weight (x - mean) / sqrt(var + eps) + bias over (B, C, H, W), mean and biased variance per channel.

    Training mode uses the statistics of the batch, in fp32 under any autocast. Eval mode uses the running statistics.
    Parameters and buffers have the names of ``nn.BatchNorm2d``. Two things differ from it:

    - ``synchronized``: training statistics are over the batches of all ranks, by one collective per forward and one per
      backward. ``vq.core.collectives`` does both, so they work on CPUs and under double backward.
    - a batch with nan or inf leaves the running statistics unchanged.
    """

    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,) unbiased
    num_batches_tracked: Tensor  # () int64

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, synchronized: bool = False) -> None:
        super().__init__()
        self.channels, self.eps, self.momentum, self.synchronized = channels, eps, momentum, synchronized
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer('running_mean', torch.empty(channels))
        self.register_buffer('running_var', torch.empty(channels))
        self.register_buffer('num_batches_tracked', torch.empty((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for tensor, value in ((self.weight, 1), (self.bias, 0), (self.running_mean, 0), (self.running_var, 1)):
                tensor.fill_(value)
            self.num_batches_tracked.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            if torch.is_grad_enabled():  # backward reads them, and a training batch may update them before backward
                mean, variance = mean.clone(), variance.clone()
                if is_lazy(x):
                    return normalize_by_statistics(x, mean, variance, self.weight, self.bias, self.eps)
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        alone = not self.synchronized or collectives.size() == 1
        if alone and x.numel() == x.shape[1]:
            raise UserError(
                f'batch norm in training got one value per channel: a batch of shape {tuple(x.shape)}',
                'Use larger batches or images, or a norm that needs no batch (group).',
            )
        return self._alone(x) if alone else self._together(x)

    def _alone(self, x: Tensor) -> Tensor:
        # momentum 1: the kernel returns the statistics of this batch, and _remember tests them for nan and inf
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        self._remember(mean, variance)
        return y

    def _together(self, x: Tensor) -> Tensor:
        """The fused kernel normalises by m and s of this rank; factors per channel turn that into M and S of all ranks.

        (x - M) / S = (x - m) / s * s / S + (m - M) / S,  s = sqrt(var + eps), S = sqrt(var_of_all + eps). Gradients reach
        the other ranks through M and S.
        """
        with no_autocast(x.device):
            mean, variance = channel_moments(x)
            mean_of_all, variance_of_all, count = join_moments(mean, variance, x.numel() // x.shape[1])
            inverse = torch.rsqrt(variance_of_all + self.eps)
            gain = self.weight * torch.sqrt(variance + self.eps) * inverse
            shift = self.bias + self.weight * (mean - mean_of_all) * inverse
        # not F.batch_norm: it refuses one value per channel, which is valid here if other ranks have more
        y = torch.batch_norm(x, gain, shift, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        self._remember(mean_of_all.detach(), variance_of_all.detach() * (count / (count - 1)))
        return y

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards mean and variance (C,) of a batch, without a host sync."""
        fine = (torch.isfinite(mean) & torch.isfinite(variance)).all()
        self.running_mean.lerp_(torch.where(fine, mean, self.running_mean), self.momentum)
        self.running_var.lerp_(torch.where(fine, variance, self.running_var), self.momentum)
        self.num_batches_tracked.add_(fine)

    def extra_repr(self) -> str:
        return f'{self.channels}, eps={self.eps}, momentum={self.momentum}, synchronized={self.synchronized}'


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> mean and biased variance (C,) in fp32 at least, differentiable."""
    mean, variance = _Moments.apply(x)  # type: ignore[no-untyped-call]
    return mean, variance


def join_moments(mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of a rank's ``count`` values -> those of all ranks' values, and their number.

    Sums of squared deviations are combined by the formula of Chan et al. (1979), because sums of squares would cancel in
    fp32. Equal bits on all ranks, one collective, differentiable.
    """
    channels = len(mean)
    rows: Tensor = _Gather.apply(torch.cat([mean, variance, mean.new_full((1,), count)]))  # type: ignore[no-untyped-call]
    means, variances, counts = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]  # (R, C), (R, C), (R, 1)
    total = counts.sum()
    share = counts / total
    joined = (share * means).sum(0)
    return joined, (share * (variances + (means - joined).square())).sum(0), total.detach()


class _Moments(torch.autograd.Function):
    """Backward is one pass over x: dmean / n + 2 dvar / n (x - mean). torch takes several passes over fp32 copies of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if x.device.type == 'cpu':  # several times as fast as var_mean
            mean, variance = torch.batch_norm_update_stats(wide, None, None, 0.0)
        else:
            variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = gradients[1] * (2 / count)
        offset = gradients[0] / count - slope * mean
        shape = (1, -1, 1, 1)
        return torch.addcmul(offset.view(shape), x, slope.view(shape)).to(x.dtype)


class _Gather(torch.autograd.Function):
    """(n,) of each rank -> (R, n) on all ranks. The gradient is of the sum of all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return torch.stack(collectives.all_gather(own))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        own: Tensor = _Collect.apply(gradients[0])  # type: ignore[no-untyped-call]
        return own


class _Collect(torch.autograd.Function):
    """(R, n) of each rank -> (n,): the sum over ranks of the row of this rank. The adjoint of ``_Gather``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return collectives.all_reduce(rows)[collectives.rank()]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rows: Tensor = _Gather.apply(gradients[0])  # type: ignore[no-untyped-call]
        return rows
