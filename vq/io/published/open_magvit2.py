"""Open-MAGVIT2's image tokenizers: lookup-free quantization, and a decoder with adaptive norms."""

from __future__ import annotations

from vq.io.published.autoencoder import assemble, get, level_count
from vq.io.published.keymap import Converted, Rule, State, Words, drop, map_keys, rename
from vq.io.published.taming import ENDS, RESIDUAL, SIDES

NESTS = ('state_dict',)
AVERAGE = 'model_ema.'

AUTOENCODER: tuple[Rule, ...] = (  # shared with SimVQ
    rename('encoder.down.{i}.block.{j}.{residual}.{leaf}', 'encoder.levels.{i}.blocks.{j}.{residual}.{leaf}'),
    rename('encoder.down.{i}.downsample.{leaf}', 'encoder.levels.{i}.resample.conv.{leaf}'),
    rename('decoder.up.{up}.block.{j}.{residual}.{leaf}', 'decoder.levels.{up}.blocks.{j}.{residual}.{leaf}'),
    rename('decoder.up.{up}.upsample.conv1.{leaf}', 'decoder.levels.{up}.resample.conv.{leaf}'),
    rename('{side}.mid_block.{i}.{residual}.{leaf}', '{side}.refine.{i}.{residual}.{leaf}'),
    rename('{side}.{end}.{leaf}', '{side}.{end}.{leaf}'),
    drop('loss.{rest}', 'losses and discriminator: needed in training only'),
    drop('model_ema.{rest}', 'moving average: already copied to the weights, or switched off by an option'),
)
RULES: tuple[Rule, ...] = (
    *AUTOENCODER,
    rename('decoder.adaptive.{up}.gamma.{leaf}', 'decoder.adaptive.{up}.gamma.{leaf}'),
    rename('decoder.adaptive.{up}.beta.{leaf}', 'decoder.adaptive.{up}.beta.{leaf}'),
)
ENCODER = {'downsample': 'strided'}
DECODER = {'upsample': 'depth_to_space'}


def convert(state: State, *, image_size: int = 256, ema: bool = True) -> Converted:
    """``ema``: use the moving average of the weights if the file has one, as their evaluation does."""
    mapped, dropped = map_keys(averaged(state) if ema else state, RULES, vocabulary(state))
    bits = int(get(mapped, 'encoder.conv_out.weight').shape[0])
    quantizer = {'type': 'LookupFreeQuantizer', 'bits': bits}
    return assemble(mapped, quantizer, image_size, dropped, encoder=ENCODER, decoder=DECODER)


def averaged(state: State) -> State:
    """Each tensor, replaced by its moving average if there is one. The average's key is the tensor's without dots."""
    return {key: state.get(f'{AVERAGE}{key.replace(".", "")}', value) for key, value in state.items()}


def vocabulary(state: State) -> dict[str, Words]:
    levels = level_count(state, 'decoder.up.')
    # their decoder counts levels from full resolution, ours from the lowest
    up = {str(level): str(levels - 1 - level) for level in range(levels)} or {'0': '0'}
    return {'side': SIDES, 'residual': RESIDUAL, 'end': ENDS, 'up': up}
