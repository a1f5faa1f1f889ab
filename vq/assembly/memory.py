"""What one device holds in training, for each strategy and number of devices, without allocating any of it.

Every number is of the device that holds most, which is that of the first rank. Parts, in bytes:

parameters   All that learn, fp32. fsdp: of a tensor that is cut ceil(rows / devices) rows, which is also what FSDP2 pads
             the parts of other ranks to; whole those that ``whole_parameters`` names.
gradients    As large as the parameters that get one in a step. base and xla let those of one optimizer go before those of
             the next are made, so the largest optimizer counts; with accumulation all of them live through the step. ddp:
             all, and those of idle parameters, since they lie in its buckets (``gradient_as_bucket_view``), which stay.
             fsdp: parts, of the largest optimizer; with accumulation whole, because gradients are joined only in the last
             micro-batch.
optimizer    The state that the configured optimizer makes in its first step on the meta device (Adam: two copies of the
             parameters and a counter each). fsdp: states of a parameter's shape are cut as it is.
average      The shadow that EMACallback makes. fsdp: cut as the parameters are.
frozen       Parameters that do not learn, and whatever the task declares frozen (LPIPS). Whole under every strategy.
buffers      All other buffers: codebooks that are no parameters, their statistics, running means. Whole.
casts        Autocast's half copies of parameters. fsdp: none of blocks that are gathered in half.
gathered     fsdp only, for each root: its own group whole in fp32, with as much again for its gradients; the two largest
             blocks (one computes, the next one travels), or all of them if they are kept until backward; and the largest
             block's gradients twice, as computed and, in fp32, as sent. A bound, not a measurement.
activations  The most that forward and backward hold at once beside all of the above, from a rehearsal of the heaviest step
             (``vq/assembly/rehearsal.py``) with the batch of one device: images, what is kept for backward, temporaries, the
             graphs of discriminator, penalties and perceptual network. For xla as if operations ran one by one; its
             compiler plans its own memory.

The total is their sum, a bound from above: parts need not all be at their largest at the same time. Not in it: what the
driver and libraries take (CUDA context, workspaces of kernels, buffers of nccl), fragmentation, batches loaded ahead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from vq.assembly.compose import checked
from vq.assembly.rehearsal import HALVES, Rehearsal, rehearse
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.data.loading import LoaderSettings
from vq.io.checkpoints import stands_under
from vq.io.spec import size_of
from vq.registries import VQRunnerRegistry
from vq.runners.callbacks.ema import EMACallback, averaged_state
from vq.runners.trainer import Trainer
from vq.strategies.fsdp import shard_blocks, whole_parameters

PARTS = ('parameters', 'gradients', 'optimizer', 'average', 'frozen', 'buffers', 'casts', 'gathered', 'activations')

Size = Callable[[nn.Parameter], int]


@dataclasses.dataclass
class Footprint:
    """One device of ``devices``. ``images`` per micro-batch; None where the config's batch does not divide."""

    strategy: str
    devices: int
    images: int | None
    parts: dict[str, int]

    @property
    def total(self) -> int | None:
        return None if self.images is None else sum(self.parts.values())


def footprints(config: PyConfig, devices: Sequence[int], images: int | None = None) -> list[Footprint]:
    """One device (base), several (ddp, fsdp), any number (xla). ``images`` per device in place of the config's batch."""
    runner = checked(config, 'trainer')
    with torch.device('meta'):
        trainer = VQRunnerRegistry.build(runner, 'trainer')
    if not isinstance(trainer, Trainer):
        raise UserError(f'trainer is a {type(trainer).__name__}', 'What training holds is known for the Trainer only.')
    holding, image_size = Holding(trainer), size_of(runner.get('dataset', {}))
    wanted = [
        (strategy, count, images or per_device(trainer.dataloader, strategy, count))
        for count in sorted(set(devices))
        for strategy in (('base', 'xla') if count == 1 else ('ddp', 'fsdp', 'xla'))
    ]
    # where no batch divides, one image shows who gets gradients
    batches = {batch for _, _, batch in wanted if batch is not None} or {1}
    try:
        rehearsed = _rehearse_all(trainer, batches, image_size)
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f'this step cannot be rehearsed on the meta device: {str(error).partition(chr(10))[0]}',
            'A part looks at values, of which there are none, or has an operation without a meta kernel.',
        ) from error
    found = []
    for strategy, count, asked in wanted:
        batch = asked if asked in rehearsed else None
        seen = rehearsed[min(rehearsed) if batch is None else batch]
        parts = holding.sharded(seen, count) if strategy == 'fsdp' else holding.whole(seen, strategy)
        parts['activations'] = 0 if batch is None else seen.activations
        found.append(Footprint(strategy, count, batch, {name: parts.get(name, 0) for name in PARTS}))
    return found


def _rehearse_all(trainer: Trainer, batches: set[int], image_size: tuple[int, int]) -> dict[int, Rehearsal]:
    """By batch; without those too small for a part, such as one image for a batch norm, unless all are."""
    seen: dict[int, Rehearsal] = {}
    refusal: UserError | None = None
    for batch in batches:
        try:
            seen[batch] = rehearse(trainer, batch, image_size)
        except UserError as error:
            refusal = error
    if refusal is not None and not seen:
        raise refusal
    return seen


def per_device(settings: LoaderSettings, strategy: str, count: int) -> int | None:
    """Images of one device in a micro-batch; None if they do not divide. xla's batch is of all devices in any case."""
    if settings.batch_size_in_total or strategy == 'xla':
        return None if settings.batch_size % count else settings.batch_size // count
    return settings.batch_size


class Holding:
    """What a trainer on the meta device holds besides activations."""

    def __init__(self, trainer: Trainer) -> None:
        model = trainer.model
        self.roots = model.roots()
        self.accumulate = trainer.strategy.accumulate > 1
        self.half = HALVES.get(getattr(trainer.strategy, 'precision', 'fp32'))
        self.keep_blocks = not getattr(trainer.strategy, 'reshard_after_forward', True)
        self.learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        prefixes = model.frozen_prefixes()
        self.frozen = sum(value.nbytes for value in model.parameters() if not value.requires_grad)
        self.buffers = 0
        for name, buffer in model.named_buffers():
            if stands_under(name, prefixes):
                self.frozen += buffer.nbytes
            else:
                self.buffers += buffer.nbytes
        self.average: dict[str, Tensor] = {}
        if any(isinstance(callback, EMACallback) for callback in trainer.callbacks.values()):
            self.average = averaged_state(model)
        self.named: Mapping[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self.plans = [ShardPlan(root) for root in self.roots.values()]

    def whole(self, seen: Rehearsal, strategy: str) -> dict[str, int]:
        """base, ddp, xla: every device has all of it."""
        gradients = [_sum(_nbytes, parameters) for parameters in seen.gradients.values()]
        if strategy == 'ddp':
            gradients = [_sum(_nbytes, filter(_learns, root.parameters())) for root in self.roots.values()]
        return {
            **self._parts(seen, _nbytes),
            'gradients': sum(gradients) if self.accumulate or strategy == 'ddp' else max(gradients),
            'casts': sum(seen.casts.values()),
        }

    def sharded(self, seen: Rehearsal, count: int) -> dict[str, int]:
        """fsdp on ``count`` devices."""
        cut = {parameter for plan in self.plans for parameter in plan.cut}
        in_half = {parameter for plan in self.plans if not plan.kept and self.half for parameter in plan.in_blocks}

        def size(parameter: nn.Parameter) -> int:
            return part_bytes(parameter, count) if parameter in cut else parameter.nbytes

        gradients = [_sum(_nbytes if self.accumulate else size, parameters) for parameters in seen.gradients.values()]
        return {
            **self._parts(seen, size),
            'gradients': sum(gradients) if self.accumulate else max(gradients),
            'casts': sum(copy for parameter, copy in seen.casts.items() if parameter not in in_half),
            'gathered': sum(plan.gathered(self.half, self.keep_blocks) for plan in self.plans),
        }

    def _parts(self, seen: Rehearsal, size: Size) -> dict[str, int]:
        return {
            'parameters': _sum(size, self.learning),
            'optimizer': sum(
                size(parameter) * value.element_size() // parameter.element_size()
                if value.shape == parameter.shape
                else value.nbytes
                for parameter, values in seen.states.items()
                for value in values
            ),
            'average': sum(self._average_bytes(name, value, size) for name, value in self.average.items()),
            'frozen': self.frozen,
            'buffers': self.buffers,
        }

    def _average_bytes(self, name: str, shadow: Tensor, size: Size) -> int:
        live = self.named.get(name)
        return size(live) if isinstance(live, nn.Parameter) else shadow.nbytes


class ShardPlan:
    """How FSDPStrategy groups the parameters of one root."""

    def __init__(self, root: nn.Module) -> None:
        whole = whole_parameters(root)
        taken: set[nn.Parameter] = set()
        self.blocks: list[list[nn.Parameter]] = []
        for block in shard_blocks(root):  # inner ones first: an outer one has the rest
            group = [parameter for parameter in block.parameters() if parameter not in whole | taken]
            taken.update(group)
            self.blocks.append(group)
        self.in_blocks = taken
        self.own = [parameter for parameter in root.parameters() if parameter not in whole | taken]
        self.cut = {*taken, *self.own}
        self.kept = any(getattr(module, 'second_order', False) for module in root.modules())

    def gathered(self, half: torch.dtype | None, keep_blocks: bool) -> int:
        """See ``gathered`` above. ``kept``: a second-order penalty keeps all of the root, gathered in fp32."""
        sizes = sorted((_sum(_nbytes, block) for block in self.blocks), reverse=True)
        most = sum(sizes[:1])
        travelling = sum(sizes if self.kept or keep_blocks else sizes[:2])
        if half is not None and not self.kept:
            return 2 * _sum(_nbytes, self.own) + travelling // 2 + most // 2 + most
        return 2 * _sum(_nbytes, self.own) + travelling + 2 * most


def part_bytes(parameter: Tensor, count: int) -> int:
    """Of the first of ``count`` ranks, where a tensor is cut along its rows."""
    rows = len(parameter)
    return -(-rows // count) * (parameter.nbytes // rows) if rows else 0


def _nbytes(value: nn.Parameter) -> int:
    return value.nbytes


def _learns(value: nn.Parameter) -> bool:
    return value.requires_grad


def _sum(size: Size, parameters: Iterable[nn.Parameter]) -> int:
    return sum(map(size, parameters))


def table(config: PyConfig, devices: Sequence[int], images: int | None = None) -> str:
    """``footprints`` as lines of text. Parts that are zero everywhere are left out."""
    found = footprints(config, devices, images)
    names = [name for name in PARTS if any(footprint.parts[name] for footprint in found)]
    rows = [['strategy', 'devices', 'images', *names, 'total']]
    for footprint in found:
        known = [name != 'activations' or footprint.images is not None for name in names]
        parts = [_mebibytes(footprint.parts[name]) if is_known else '-' for name, is_known in zip(names, known, strict=True)]
        images_text = '-' if footprint.images is None else str(footprint.images)
        rows.append([footprint.strategy, str(footprint.devices), images_text, *parts, _mebibytes(footprint.total)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        '  '.join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    uneven = [str(footprint.devices) for footprint in found if footprint.images is None]
    if uneven:
        batch = config.trainer.dataloader.batch_size
        lines.append(f'{batch} images do not divide among {", ".join(dict.fromkeys(uneven))} devices: see --batch')
    return '\n'.join(lines)


def _mebibytes(value: int | None) -> str:
    return '-' if value is None else f'{value / 2**20:,.1f}'
