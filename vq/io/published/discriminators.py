"""Our names for the tensors of published discriminators. Only keys change: no file is read, no network is built."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vq.core.errors import UserError, listing

CONV = {'weight', 'bias'}
NORM = {'weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'}  # of batch norm; group norm has the first two
ACT_NORM = {'loc', 'scale', 'initialized'}


def patchgan_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``main.N.*`` of pix2pix, taming and their copies -> names of ``vq.discriminators.patchgan.PatchGAN``.

    N counts activations too, so it depends on the depth and on whether there are norms. Convolutions are therefore found
    by their shapes; a norm belongs to the convolution right before it.
    """
    layers: dict[int, set[str]] = {}
    for key in state:
        match = re.fullmatch(r'main\.(\d+)\.(\w+)', key)
        if match is None:
            raise _unknown(key, 'a patch discriminator', 'main.N.weight and the like')
        layers.setdefault(int(match[1]), set()).add(match[2])
    convs = [layer for layer in sorted(layers) if 'weight' in layers[layer] and state[f'main.{layer}.weight'].dim() == 4]
    if len(convs) < 3:
        raise UserError(
            f'these are not the weights of a patch discriminator: {len(convs)} convolutions, and at least 3 are needed',
            f'Give all of its tensors; here are {listing(state) or "none"}.',
        )
    places = {convs[0]: 'stem', convs[-1]: 'head'}
    places.update({layer: f'blocks.{index}.conv' for index, layer in enumerate(convs[1:-1])})
    norms = {layer + 1: f'blocks.{index}.norm' for index, layer in enumerate(convs[1:-1])}
    renamed = {}
    for key, value in state.items():
        layer, leaf = int(key.split('.')[1]), key.split('.')[2]
        place = places.get(layer) or norms.get(layer)
        known = CONV if layer in places else ACT_NORM if 'loc' in layers[layer] else NORM
        if place is None or leaf not in known:
            raise _unknown(key, 'a patch discriminator', 'convolutions, each with a norm right after it or without')
        renamed[f'{place}.{leaf}'] = value
    return renamed


def stylegan2_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``bR.conv0.weight`` and so on, R a resolution, of StyleGAN2's residual discriminator and its copies -> names of
    ``vq.discriminators.stylegan2.StyleGAN2Discriminator``.

    Filters are checked and left out: ours is always [1, 3, 3, 1].
    """
    found = {key: re.fullmatch(r'b(\d+)\.(.+)', key) for key in state}
    sizes = sorted({int(match[1]) for match in found.values() if match} - {4}, reverse=True)
    names = {'b4.conv': 'head.conv', 'b4.fc': 'head.hidden', 'b4.out': 'head.out'}
    for index, size in enumerate(sizes):
        for theirs, ours in (('conv0', 'conv'), ('conv1', 'down'), ('skip', 'skip')):
            names[f'b{size}.{theirs}'] = f'blocks.{index}.{ours}'
    if sizes:
        names[f'b{sizes[0]}.fromrgb'] = 'stem'
    renamed = {}
    for key, value in state.items():
        place, _, leaf = key.rpartition('.')
        if leaf == 'resample_filter' and found[key]:
            _check_filter(key, value)
            continue
        known = place in names and (leaf == 'weight' or (leaf == 'bias' and not place.endswith('.skip')))
        if not known:
            raise _unknown(key, 'a residual StyleGAN2 discriminator', 'bR.conv0, bR.conv1, bR.skip, b4.fc and so on')
        renamed[f'{names[place]}.{leaf}'] = value
    return renamed


def reference_stylegan2_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``_layers.N.*`` and ``_projector.N.*`` of the reference toolkit's StyleGAN2 discriminator -> our names.

    Its layers are the stem, the blocks, a layer without tensors (minibatch standard deviation), and the last convolution.
    The bias of a convolution is stored in the activation after it. Filters are checked and left out.
    """
    blocks = sorted({int(match[1]) for key in state if (match := re.match(r'_layers\.(\d+)\._(?:residual|shortcut)\.', key))})
    places = {'_layers.0': 'stem', f'_layers.{len(blocks) + 2}': 'head.conv'}
    places |= {'_projector.0': 'head.hidden', '_projector.1': 'head.out'}
    for index, layer in enumerate(blocks):
        for theirs, ours in (('_residual.0', 'conv'), ('_residual.1', 'down'), ('_shortcut', 'skip')):
            places[f'_layers.{layer}.{theirs}'] = f'blocks.{index}.{ours}'
    leaves = {'_original_weight': 'weight', '_activate.bias': 'bias', 'bias': 'bias'}
    renamed = {}
    for key, value in state.items():
        found = re.fullmatch(r'(.+?)\.(_blur\._kernel|_original_weight|_activate\.bias|bias)', key)
        if found is None or found[1] not in places:
            raise _unknown(
                key, "the reference toolkit's StyleGAN2 discriminator", '_layers.N._residual.0._original_weight and so on'
            )
        if found[2] == '_blur._kernel':
            _check_filter(key, value)
        else:
            renamed[f'{places[found[1]]}.{leaves[found[2]]}'] = value
    return renamed


def _check_filter(key: str, value: Tensor) -> None:
    """Raise unless ``value`` is (4, 4), the outer product of [1, 3, 3, 1] / 8 with itself."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    same = value.shape == (4, 4) and (value.is_meta or torch.allclose(value.float().cpu(), torch.outer(taps, taps)))
    if not same:
        raise UserError(
            f"'{key}' is another filter than [1, 3, 3, 1]", 'This discriminator cannot be converted: its network differs.'
        )


def _unknown(key: str, network: str, expected: str) -> UserError:
    return UserError(f"'{key}' is not a tensor of {network}", f'Expected are {expected}, without a prefix.')
