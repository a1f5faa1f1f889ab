"""The two-stage framework (MAE-DiT): the folder of an epoch, ``ep_10-checkpoint``, with a file for each of its objects.

    0-model.pt       stage_1_model.*, connector.*, and stage_2_model.* of a second stage
    0-ema-model.pt   the same below module.*, of the moving average
    0-additional.pt  {'discriminator': ...} of a first stage
    0-optimizer.pt, 0-scheduler.pt, and states of random generators: left out, as moments are stored without names

0 is the rank; ranks hold the same weights. No file of the framework was available: names were taken from its published code.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vq.core.errors import UserError, listing
from vq.io.published import diffusers_kl, dit, vit_mae
from vq.io.published.discriminators import patchgan_keys
from vq.io.published.dit import ConvertedDenoiser
from vq.io.published.keymap import Converted, State
from vq.io.published.reader import read_published, read_state

Weights = Literal['auto', 'model', 'ema']
NAME = re.compile(r'(\d+)-(model|ema-model|additional|optimizer|scheduler|[\w-]+)\.pt')
STAGES = ('stage_1_model', 'connector', 'stage_2_model')
WRAPPERS = ('module.', '_orig_mod.')  # of the moving average, DDP and torch.compile
BATCH_NORM = ('bn.running_mean', 'bn.running_var', 'bn.num_batches_tracked')
LATENT_SCALE = 0.18215  # its KL autoencoder multiplies latents by this
EPS = 1e-5  # of torch's batch norm


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The tensors of a folder, by stage, with the keys that the stages themselves have."""

    file: Path  # of the weights
    stages: dict[str, dict[str, Tensor]]
    discriminator: dict[str, Tensor]
    left_out: list[str]  # names of files


def read_epoch(folder: Path, weights: Weights = 'auto') -> Epoch:
    """The weights of an epoch: those of the moving average, or 'auto': where there is one."""
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder', 'Give the folder of an epoch: ep_10-checkpoint.')
    found = {match.groups(): file for file in sorted(folder.iterdir()) if (match := NAME.fullmatch(file.name))}
    ranks = sorted({int(rank) for rank, _ in found})
    files = {kind: file for (rank, kind), file in found.items() if ranks and int(rank) == ranks[0]}
    chosen = weights if weights != 'auto' else 'ema' if 'ema-model' in files else 'model'
    name = {'model': 'model', 'ema': 'ema-model'}[chosen]
    if name not in files:
        there = listing(file.name for file in sorted(folder.iterdir())) or 'nothing'
        raise UserError(f'{folder} has no file 0-{name}.pt: there is {there}', 'Give the folder of an epoch, complete.')
    stages: dict[str, dict[str, Tensor]] = {stage: {} for stage in STAGES}
    unknown = []
    for key, value in read_state(files[name], ()).items():
        stage, _, rest = _unwrapped(key).partition('.')
        if stage in stages and rest:
            stages[stage][rest] = value
        else:
            unknown.append(key)
    refuse(unknown, files[name])
    used = {name, 'additional'}
    return Epoch(
        files[name],
        stages,
        _discriminator(files['additional']) if 'additional' in files else {},
        sorted(file.name for (_, kind), file in found.items() if kind not in used or file not in files.values()),
    )


def refuse(unknown: Iterable[str], file: Path) -> None:
    """An error that lists the keys that nothing here knows."""
    keys = list(unknown)
    if keys:
        raise UserError(
            f'{file.name} has {len(keys)} unknown keys: {listing(keys, most=8)}',
            'The framework has stage_1_model.*, connector.* and stage_2_model.*, with models of its own that are converted.',
        )


def _unwrapped(key: str) -> str:
    while key.startswith(WRAPPERS):
        key = key.partition('.')[2]
    return key


def _discriminator(file: Path) -> dict[str, Tensor]:
    """The state of the discriminator among the additional modules."""
    value = read_published(file)
    others = sorted(map(str, value)) if isinstance(value, dict) else []
    if not isinstance(value, dict) or others != ['discriminator'] or not isinstance(value['discriminator'], Mapping):
        raise UserError(
            f"{file.name} holds {listing(others) or type(value).__name__}, and only a 'discriminator' is known there",
            'Move the file away: the weights of the stages are in the others.',
        )
    state = {_unwrapped(str(key)): item for key, item in value['discriminator'].items()}
    refuse((key for key, item in state.items() if not isinstance(item, Tensor)), file)
    return state


def convert(
    epoch: Epoch,
    *,
    weights: Weights = 'auto',
    image_size: int = 256,
    kl_weight: float = 1e-6,
    norm_groups: int = 32,
    discriminator: bool = True,
    heads: int | None = None,
    encoder_heads: int | None = None,
    decoder_heads: int | None = None,
    label_drop: float = 0.1,
) -> dict[str, Converted | ConvertedDenoiser]:
    """Name of a file -> what it holds: ``tokenizer``, ``denoiser``, or both. ``weights`` is for ``read_epoch``.

    ``image_size``, ``kl_weight``, ``norm_groups``: of a KL autoencoder. ``discriminator``: False leaves it out. ``heads``:
    of a denoiser of another width than the published ones. ``encoder_heads``, ``decoder_heads``: of a masked autoencoder.
    """
    found: dict[str, Any] = {}
    first, second = epoch.stages['stage_1_model'], epoch.stages['stage_2_model']
    if first:
        if any(key.startswith('vae.') for key in first):
            found['tokenizer'] = _kl(epoch, first, image_size, kl_weight, norm_groups)
        else:
            found['tokenizer'] = _mae(epoch, first, encoder_heads, decoder_heads)
        if epoch.discriminator and discriminator:
            critic = patchgan_keys(epoch.discriminator)
            found['tokenizer'].tensors.update({f'discriminator.{key}': value for key, value in critic.items()})
    if second:
        state = _below(second, 'model.', 'stage_2_model', epoch.file)
        converted = dit.convert(state, heads=heads, label_drop=label_drop)
        # statistics in the tokenizer take the place of the factor
        found['denoiser'] = dataclasses.replace(converted, latent_scale=None if first else LATENT_SCALE)
    if not found:
        raise UserError(f'{epoch.file} has no stage_1_model.* and no stage_2_model.*', 'Is the folder complete?')
    return found


def _kl(epoch: Epoch, state: State, image_size: int, kl_weight: float, norm_groups: int) -> Converted:
    """A KL autoencoder of diffusers. Its statistics are the factor, or those of the connector, of latents times the factor."""
    own = _below(state, 'vae.', 'stage_1_model', epoch.file)
    settings = {'scaling_factor': LATENT_SCALE, 'norm_num_groups': norm_groups}
    converted = diffusers_kl.convert(own, settings, image_size=image_size, kl_weight=kl_weight)
    for name, value in _statistics(epoch.stages['connector'], epoch.file).items():
        converted.tensors[f'tokenizer.statistics.{name}'] = value / LATENT_SCALE
    return converted


def _mae(epoch: Epoch, state: State, heads: int | None, decoder_heads: int | None) -> Converted:
    """A masked autoencoder of transformers. Its connector has statistics (C,) of the maps of patches."""
    own = _below(state, 'model.', 'stage_1_model', epoch.file)
    converted = vit_mae.convert(own, heads=heads, decoder_heads=decoder_heads)
    for name, value in _statistics(epoch.stages['connector'], epoch.file).items():
        converted.tensors[f'tokenizer.statistics.{name}'] = value
    return converted


def _below(state: State, prefix: str, stage: str, file: Path) -> dict[str, Tensor]:
    """The tensors of a stage without ``prefix``. There are no others in the models that are converted."""
    refuse((f'{stage}.{key}' for key in state if not key.startswith(prefix)), file)
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _statistics(connector: State, file: Path) -> dict[str, Tensor]:
    """Mean and deviation (C,) of the latents that the connector's batch norm has seen; nothing if it has none.

    normalize(z) = (z - running_mean) / sqrt(running_var + eps).
    """
    refuse((f'connector.{key}' for key in connector if key not in BATCH_NORM), file)
    if not connector:
        return {}
    mean, variance = (connector.get(name) for name in BATCH_NORM[:2])
    if mean is None or variance is None or mean.shape != variance.shape or mean.ndim != 1:
        raise UserError(f'{file.name}: the statistics of the connector are incomplete', 'The file is damaged.')
    return {'mean': mean.float(), 'deviation': torch.sqrt(variance.float() + EPS)}
