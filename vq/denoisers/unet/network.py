"""The UNet of denoising diffusion, of blocks that a config names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, listing
from vq.core.parameters import parameters_of
from vq.core.records import Prediction, PredictionKind
from vq.core.registry import find_item
from vq.core.specs import in_words
from vq.denoisers.dit import vector_of
from vq.denoisers.times import SineTime
from vq.denoisers.unet.residual import norm_of
from vq.interfaces import Conditioned, Denoiser, UNetBlock
from vq.interfaces.unet import applied
from vq.registries import VQDenoiserRegistry, VQUNetBlockRegistry

BlockConfig = str | dict[str, Any]  # the name of a block, or dict(type=name, settings)


def make_block(config: BlockConfig, path: str, **numbers: Any) -> UNetBlock:
    """``numbers``: those of ``UNetBlock``; a block gets the ones that its constructor takes. The config comes first."""
    part = {'type': config} if isinstance(config, str) else dict(config)
    known = parameters_of(find_item(VQUNetBlockRegistry, part.get('type'), path)[1])
    own = {name: value for name, value in numbers.items() if name in known}
    block: UNetBlock = VQUNetBlockRegistry.build(own | part, path)
    return block


class Level(nn.Module):
    """One resolution: residual blocks, each followed by attention if the level has any; then a change of resolution."""

    def __init__(self, res: list[UNetBlock], attention: list[UNetBlock], resample: UNetBlock | None) -> None:
        super().__init__()
        self.res, self.attention, self.resample = nn.ModuleList(res), nn.ModuleList(attention), resample

    def at(self, index: int) -> Iterator[nn.Module]:
        """The residual block of this number and the attention that follows it."""
        yield self.res[index]
        if len(self.attention):
            yield self.attention[index]


@VQDenoiserRegistry.register_()
class UNet(Denoiser):
    """z_t (B, channels, H, W) -> down through the levels and up again, with all states of the way down joined on the way up
    -> an estimate of ``kind``  (Ho et al. 2020; Dhariwal and Nichol 2021; Rombach et al. 2022).

    - ``width``: channels of the first level; of level i, ``width`` times ``multipliers[i]``. Each level halves the resolution
      of the one before. ``res_blocks``: residual blocks of a level; on the way up one more.
    - ``attention_at``: the levels with attention, by the factor of their resolution: 1, 2, 4, ... The middle always has it.
    - ``res_block_type``, ``attn_block_type``, ``down_block_type``, ``up_block_type``: names of ``VQUNetBlockRegistry``, or
      dicts with their settings. For blocks of one's own, subclass ``EmbedBlock`` or ``ConditionBlock`` (vq/interfaces/unet.py)
      and register them there.
    - ``sequence_dim``: channels of the sequence of a conditioner, which a ``SpatialTransformer`` attends to; None: none.
    - ``adapter_type``: a block after the attention, at the levels ``adapters_at``, on the way down and up, such as
      ``RegionAttention``. Adapters are in ``adapters``, and the keys of all other weights are those of a UNet without them.
      ``layout_dim``: channels of the class vectors of a conditioner of layouts.
    - ``trains``: 'adapters' leaves all other weights as they are; they come from ``--load-model-from``. Training begins with
      new adapters and prompts where the file has none.
    - ``learned_variance``: as many channels again, the variance of the reverse process.
    - ``timesteps`` T: the network is told  t T - 1,  the index of a time among T.

    Vectors of a conditioner, of ``dim`` = 4 ``width`` channels, are added to what the time gives.
    """

    added: ClassVar[tuple[str, ...]] = ('adapters',)

    def __init__(
        self,
        channels: int,
        cells: tuple[int, ...],
        width: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        res_blocks: int = 2,
        attention_at: tuple[int, ...] = (2, 4),
        res_block_type: str | dict[str, Any] = 'ResBlock',
        attn_block_type: str | dict[str, Any] = 'SelfAttention',
        down_block_type: str | dict[str, Any] = 'Downsample',
        up_block_type: str | dict[str, Any] = 'Upsample',
        adapter_type: str | dict[str, Any] | None = None,
        adapters_at: tuple[int, ...] = (),
        sequence_dim: int | None = None,
        layout_dim: int | None = None,
        trains: Literal['all', 'adapters'] = 'all',
        groups: int = 32,
        learned_variance: bool = False,
        kind: PredictionKind = 'epsilon',
        timesteps: int = 1000,
    ) -> None:
        super().__init__()
        factors = [2**level for level in range(len(multipliers))]
        _check(tuple(cells), width, tuple(multipliers), res_blocks, factors)
        _check_levels('attention_at', tuple(attention_at), factors)
        _check_levels('adapters_at', tuple(adapters_at), factors)
        self.channels, self.cells, self.width, self.dim = channels, tuple(cells), width, 4 * width
        self.multipliers, self.res_blocks, self.attention_at = tuple(multipliers), res_blocks, tuple(attention_at)
        self.kind, self.learned_variance = kind, learned_variance
        self.sequence_dim, self.layout_dim = sequence_dim, layout_dim
        numbers: dict[str, Any] = {'embedding_dim': self.dim, 'sequence_dim': sequence_dim, 'layout_dim': layout_dim}
        numbers['groups'] = groups

        def res(given: int, wanted: int) -> UNetBlock:
            return make_block(res_block_type, 'res_block_type', in_channels=given, out_channels=wanted, **numbers)

        def attention(wide: int) -> UNetBlock:
            return make_block(attn_block_type, 'attn_block_type', channels=wide, **numbers)

        self.time = SineTime(self.dim, timesteps, channels=width)
        self.into = nn.Conv2d(channels, width, 3, padding=1)
        joined, here, down = [width], width, []
        for factor, multiplier in zip(factors, multipliers, strict=True):
            wide = width * multiplier
            blocks = [res(here if index == 0 else wide, wide) for index in range(res_blocks)]
            attends = [attention(wide) for _ in blocks] if factor in attention_at else []
            last = factor == factors[-1]
            between = None if last else make_block(down_block_type, 'down_block_type', channels=wide, **numbers)
            down.append(Level(blocks, attends, between))
            joined += [wide] * (res_blocks if last else res_blocks + 1)
            here = wide
        self.down = nn.ModuleList(down)
        self.middle = Level([res(here, here), res(here, here)], [attention(here)], None)
        up = []
        for factor, multiplier in zip(reversed(factors), reversed(multipliers), strict=True):
            wide, blocks = width * multiplier, []
            for _ in range(res_blocks + 1):
                blocks.append(res(here + joined.pop(), wide))
                here = wide
            attends = [attention(wide) for _ in blocks] if factor in attention_at else []
            between = None if factor == 1 else make_block(up_block_type, 'up_block_type', channels=wide, **numbers)
            up.append(Level(blocks, attends, between))
        self.up = nn.ModuleList(up)
        self.norm = norm_of(width, groups)
        self.out = nn.Conv2d(width, channels * (2 if learned_variance else 1), 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.adapters = nn.ModuleDict()  # last, so that the other weights are drawn as if it was empty
        if adapter_type is not None:
            for name, wide in self._places(tuple(adapters_at)):
                self.adapters[name] = make_block(adapter_type, 'adapter_type', channels=wide, **numbers)
        if trains == 'adapters':
            self._freeze()
        forms = {form for block in self.modules() if isinstance(block, UNetBlock) for form in block.reads}
        self.takes = ('vector', *sorted(forms))

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        vector = None if condition is None or condition.vector is None else vector_of(condition, self.dim)
        embedding = self.time(t)
        embedding = embedding if vector is None else embedding + vector

        def run(x: Tensor, *blocks: nn.Module | None) -> Tensor:
            for block in blocks:
                x = x if block is None else applied(block, x, embedding, condition)
            return x

        x = self.into(z)
        states = [x]
        for number, level in enumerate(self.down):
            for index in range(self.res_blocks):
                x = run(x, *level.at(index), self._adapter('down', number, index))  # type: ignore[operator]
                states.append(x)
            if level.resample is not None:
                x = run(x, level.resample)  # type: ignore[arg-type]
                states.append(x)
        x = run(x, self.middle.res[0], self.middle.attention[0], self.middle.res[1])
        for number, level in enumerate(self.up):
            for index in range(self.res_blocks + 1):
                x = torch.cat([x, states.pop()], dim=1)
                x = run(x, *level.at(index), self._adapter('up', number, index))  # type: ignore[operator]
            x = run(x, level.resample)  # type: ignore[arg-type]
        value = self.out(F.silu(self.norm(x)))
        if not self.learned_variance:
            return Prediction(value, self.kind)
        value, variance = value.chunk(2, dim=1)
        return Prediction(value, self.kind, variance)

    def _freeze(self) -> None:
        """All but what is ``added``."""
        if not len(self.adapters):
            raise ConfigError("trains is 'adapters', and there are none", "Set adapter_type and adapters_at, or trains='all'.")
        self.requires_grad_(False)
        for part in self.modules():
            for name in getattr(part, 'added', ()):
                found = getattr(part, name)
                if found is not None:
                    found.requires_grad_(True)

    def _places(self, at: tuple[int, ...]) -> Iterator[tuple[str, int]]:
        """Name and channels of the places behind the attention, at levels of these factors."""
        levels = [*enumerate(self.multipliers)]
        for side, order, blocks in (('down', levels, self.res_blocks), ('up', levels[::-1], self.res_blocks + 1)):
            for number, (level, multiplier) in enumerate(order):
                for index in range(blocks if 2**level in at else 0):
                    yield f'{side}_{number}_{index}', self.width * multiplier

    def _adapter(self, side: str, level: int, index: int) -> nn.Module | None:
        name = f'{side}_{level}_{index}'
        return self.adapters[name] if name in self.adapters else None  # noqa: SIM401 - a ModuleDict has no get


def _check(cells: tuple[int, ...], width: int, multipliers: tuple[int, ...], res_blocks: int, factors: list[int]) -> None:
    if not multipliers or min(multipliers) < 1 or width < 2 or width % 2 or res_blocks < 1:
        raise ConfigError(
            f'width is {width}, multipliers {multipliers} and res_blocks {res_blocks}',
            'Give an even width, a multiplier of 1 or more for each level, and 1 residual block or more.',
        )
    if len(cells) != 2 or any(side < 1 or side % factors[-1] for side in cells):
        raise ConfigError(
            f'{in_words(cells)} cells with {len(factors)} levels, of which each halves the resolution',
            f'Height and width must be multiples of {factors[-1]}: take fewer multipliers, or another size.',
        )


def _check_levels(name: str, at: tuple[int, ...], factors: list[int]) -> None:
    unknown = [factor for factor in at if factor not in factors]
    if unknown:
        raise ConfigError(
            f'{name} has the factor {unknown[0]}, and the levels have {listing(map(str, factors))}',
            'It is by how much the resolution of a level is smaller than that of the first.',
        )
