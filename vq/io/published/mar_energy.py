"""The denoisers of energy diffusion (mar_ebwm, ``pure_diffusion_*``), standard and energy, from their key lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from vq.core.errors import UserError
from vq.io.published import dit
from vq.io.published.dit import DENOISER, ConvertedDenoiser
from vq.io.published.keymap import State

NESTS = ('model_ema', 'model')  # its checkpoint-last.pth holds both; published figures are those of the average
LATENT_SCALE = 0.2325  # the networks see latents of KL-16 times this
STEP, HEAD, FINAL = 'alpha', 'energy_layer.energy_head.', 'final_layer.linear.'
LAYERS = {'0.weight': 'into.weight', '0.bias': 'into.bias', '2.weight': 'out.weight', '2.bias': 'offset'}
UNUSED = 'the output layer: not used by an energy'
INNER = 'step of an inner loop: nothing to descend without an energy'
Reduction = Literal['mean_then_head', 'head_then_mean']


def convert(
    state: State,
    *,
    heads: int | None = None,
    label_drop: float = 0.1,
    reduction: Reduction = 'mean_then_head',
    multiplier: float = 1.0,
    timesteps: int = 1000,
) -> ConvertedDenoiser:
    """``heads``: shapes do not tell; None: those of the published width. ``reduction`` (``linear_then_mean``), ``multiplier``
    (``--energy_grad_multiplier``) and ``timesteps`` (``--diffusion_timesteps``) are flags that the file does not have."""
    rest = {key.removeprefix('dit.'): value for key, value in state.items() if key.startswith('dit.')}
    others = [key for key in state if not key.startswith('dit.') and key != STEP]
    if others or not rest:
        raise UserError(
            f"it has '{others[0]}'" if others else 'it has no dit.*',
            'Is it a pure_diffusion model of mar_ebwm? Its keys are alpha and dit.*.',
        )
    head = {key: rest.pop(key) for key in list(rest) if key.startswith(HEAD)}
    if not head:
        converted = dit.convert(rest, heads=heads, label_drop=label_drop)
        dropped = {**converted.dropped, INNER: [STEP]} if STEP in state else converted.dropped
        told = {**converted.denoiser, 'timesteps': timesteps}
        return dataclasses.replace(converted, denoiser=told, latent_scale=LATENT_SCALE, dropped=dropped)
    return _energy(state, rest, head, heads, label_drop, reduction, multiplier, timesteps)


def _energy(
    state: State,
    rest: dict[str, Tensor],
    head: State,
    heads: int | None,
    label_drop: float,
    reduction: Reduction,
    multiplier: float,
    timesteps: int,
) -> ConvertedDenoiser:
    """The output layer of the file has other shapes than that of a denoiser, and is not used."""
    if 'x_embedder.proj.weight' not in rest or STEP not in state:
        raise UserError('it has no dit.x_embedder.proj.weight, or no alpha', 'Is the file complete?')
    dim, channels, patch, _ = rest['x_embedder.proj.weight'].shape
    unused = [f'dit.{key}' for key in rest if key.startswith('final_layer.')]
    rest[f'{FINAL}weight'] = rest['x_embedder.proj.weight'].new_empty(channels * patch**2, dim)
    converted = dit.convert(rest, heads=heads, label_drop=label_drop)
    tensors: dict[str, Tensor] = {DENOISER + STEP: state[STEP]}
    for key, value in converted.tensors.items():
        if key.startswith(DENOISER):
            key = DENOISER + key
        if not key.startswith(f'{DENOISER}{DENOISER}final.'):
            tensors[key] = value
    for key, value in head.items():
        name = key.removeprefix(HEAD)
        if name not in LAYERS:
            raise UserError(f"'dit.{key}' is not a tensor of an energy head", 'A head has two linear layers.')
        tensors[f'{DENOISER}head.{LAYERS[name]}'] = value
    config: dict[str, Any] = {
        'type': 'Energy',
        'denoiser': {**converted.denoiser, 'learned_variance': False, 'timesteps': timesteps},
        'channels': channels,
        'cells': converted.denoiser['cells'],
        'reduction': reduction,
        'multiplier': multiplier,
    }
    return dataclasses.replace(
        converted,
        denoiser=config,
        tensors=tensors,
        latent_scale=LATENT_SCALE,
        dropped={**converted.dropped, UNUSED: unused},
    )


def restore(tensors: Mapping[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """The reverse of ``convert``, without what it drops: tensors of a task under the names of mar_ebwm. ``positions``: those
    of the network, (N, dim)."""
    words = {f'{DENOISER}head.{ours}': f'dit.{HEAD}{theirs}' for theirs, ours in LAYERS.items()} | {DENOISER + STEP: STEP}
    network = {
        DENOISER + key.removeprefix(DENOISER * 2) if key.startswith(DENOISER * 2) else key: value
        for key, value in tensors.items()
        if key not in words
    }
    restored = {words[key]: value for key, value in tensors.items() if key in words}
    return restored | {f'dit.{key}': value for key, value in dit.restore(network, positions).items()}
