"""New values for unused codes, equal on all ranks. Chosen on the host: once in a few hundred steps the host sync is cheap."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.random import torch_stream


def from_codes(codebook: Tensor, counts: Tensor, unused: Tensor, noise: float, *seed: int | str) -> tuple[Tensor, Tensor]:
    """e_k <- e_j + noise |e_j| / sqrt(C) g for unused k; j is a used code, drawn with probability n_j / sum n; g ~ N(0, 1).

    codebook (K, C), counts (K,) n, unused (K,) bool -> (the new codebook, which codes changed), on the codebook's device.
    """
    codes, used_counts = codebook.detach().cpu(), torch.where(unused, 0, counts).cpu().double()
    places = unused.cpu().nonzero().flatten()
    changed = torch.zeros(len(codes), dtype=torch.bool)
    if len(places) and float(used_counts.sum()) > 0:
        stream = torch_stream(*seed)
        donors = codes[torch.multinomial(used_counts, len(places), replacement=True, generator=stream)]
        step = noise * donors.square().mean(1, keepdim=True).sqrt()
        codes = codes.index_copy(0, places, donors + step * torch.randn(donors.shape, generator=stream))
        changed[places] = True
    return codes.to(codebook.device), changed.to(codebook.device)


def from_features(codebook: Tensor, features: Tensor, there: Tensor, unused: Tensor) -> tuple[Tensor, Tensor]:
    """The i-th unused code becomes the i-th of the randomly drawn features (R, C). ``there`` (R,): which features exist."""
    places = unused.cpu().nonzero().flatten()[: int(there.sum())]
    changed = torch.zeros(len(codebook), dtype=torch.bool)
    changed[places] = True
    places = places.to(codebook.device)
    return codebook.detach().index_copy(0, places, features[: len(places)]), changed.to(codebook.device)
