"""Random weights in the layout of pytorch-fid's file, scaled so that activations neither vanish nor explode."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.teachers.inception import Conv, FIDInception


def published_layout(network: FIDInception, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if not isinstance(module, Conv):
            continue
        shape = module.conv.weight.shape
        weights[f'{name}.conv.weight'] = torch.randn(shape, generator=draw) * (2 / shape[1:].numel()) ** 0.5
        for leaf, centre in (('weight', 1.0), ('bias', 0.0), ('running_mean', 0.0)):
            weights[f'{name}.bn.{leaf}'] = centre + 0.1 * torch.randn(shape[0], generator=draw)
        weights[f'{name}.bn.running_var'] = 0.5 + torch.rand(shape[0], generator=draw)
        weights[f'{name}.bn.num_batches_tracked'] = torch.tensor(1)
    weights['fc.weight'] = 0.02 * torch.randn(1008, 2048, generator=draw)
    weights['fc.bias'] = torch.zeros(1008)
    return weights
