"""Checks of a mean and a covariance that were read from a file."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of the largest entry, or of the Frobenius norm: above the rounding of float32


def fault_of(mean: Tensor, covariance: Tensor) -> str | None:
    """What is wrong with a mean (D,) and a covariance (D, D), or None. The covariance has to be symmetric and positive.

    C is taken as positive semidefinite if C + t I has a Cholesky factor. The t of ``TOLERANCE`` times the norm of C allows for
    rounding; a D of 2,048 takes a fraction of the time of the eigenvalues.
    """
    for name, value in (('mean', mean), ('covariance', covariance)):
        if value.is_complex():
            return f'a {name} of complex numbers'
        if not value.is_floating_point():
            return f'a {name} of whole numbers ({str(value.dtype).removeprefix("torch.")})'
        if not bool(value.isfinite().all()):
            return f'a {name} that is not finite'
    full, tolerance = covariance.double(), max(TOLERANCE, 8 * torch.finfo(covariance.dtype).eps)
    if not full.numel():
        return 'an empty covariance'
    if bool((full - full.T).abs().max() > tolerance * full.abs().max()):
        return 'a covariance that is not symmetric'
    norm = torch.linalg.matrix_norm(full)
    diagonal = full.diagonal()
    negative = bool((diagonal < -1e-9 * diagonal.abs().max()).any())
    shifted = (full + full.T) / 2
    shifted.diagonal().add_(tolerance * norm.clamp_min(1e-300))
    if negative or int(torch.linalg.cholesky_ex(shifted).info):
        return 'a covariance that is not positive'
    return None
