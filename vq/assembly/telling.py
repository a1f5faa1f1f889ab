"""What a command says about its work: a block before the first step or batch, a block at the end. The first rank speaks."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vq.assembly.building import is_first_process
from vq.core import output
from vq.core.errors import UserError
from vq.core.figures import direction
from vq.interfaces import Dataset, Strategy, Task, Tokenizer
from vq.io.spec import Spec
from vq.runners import journal
from vq.runners.callbacks.backends import BackendsCallback
from vq.runners.callbacks.checkpoint import CheckpointCallback
from vq.runners.callbacks.evaluate import EvalCallback
from vq.runners.callbacks.log import LogCallback
from vq.runners.callbacks.validate import ValidateCallback
from vq.runners.context import RunContext
from vq.runners.progress import clock
from vq.runners.trainer import Trainer
from vq.runners.validator import Validator
from vq.tasks.spec import spec_of

logger = logging.getLogger('vq')

WIDEST, NARROWEST = 100, 60  # columns of a block
MOST_FIGURES = 4
PIXEL_ERRORS = ('l1', 'l2', 'mse')  # psnr says the same


def tell(title: str, rows: Mapping[str, str]) -> None:
    width = min(WIDEST, max(NARROWEST, output.columns(sys.stderr)))
    logger.info('%s', output.block(title, rows, width))


class Training:
    """The blocks of a training. ``memory`` says what a step needs and what is free."""

    def __init__(self, trainer: Trainer, memory: str) -> None:
        self.trainer, self.memory = trainer, memory

    def begin(self) -> None:
        """All is built, and nothing has been trained yet."""
        trainer = self.trainer
        self.started, self.first = time.monotonic(), trainer.step
        start = f' from step {trainer.step}' if trainer.step else ''
        spec = spec_of(trainer.model, trainer.dataset)
        rows = {
            'device': on_device(trainer.strategy),
            'images': self._images(spec),
            'model': count_parts(trainer.model),
            'codes': describe_codes(spec),
            'memory': self.memory,
            'learning': '; '.join(self._rates()),
            'length': f'{trainer.iters:,} steps of {self._batch()}, {epochs(trainer)}',
            'saved': self._saved(),
            'evaluated': self._evaluated(),
            'logged': self._logged(),
            'watch': self._watch(),
        }
        tell(f'training {trainer.context.name}{start} in {trainer.work_dir}', rows)

    def _images(self, spec: Spec) -> str:
        trainer = self.trainer
        size = '' if spec.image is None else f', {spec.image[1]} x {spec.image[0]} pixels'
        said = describe(trainer.dataset) + size
        validator = next((found.validator for found in self._callbacks(EvalCallback)), None)
        return said if validator is None else f'{said}; held out: {describe(validator.dataset)}'

    def _rates(self) -> list[str]:
        """The highest learning rate of each optimizer, after scaling by the batch."""
        trainer, said = self.trainer, []
        for name, stepped in trainer.stepped.items():
            settings = trainer.step_settings[name]
            rate = f'{float(stepped.base[0]) * stepped.scale:.4g}'
            if settings.scale_lr != 'none':
                of = f'{trainer.batch_size} of {settings.base_batch} images'
                rate += f' = {float(stepped.base[0]):.4g} x {stepped.scale:.4g} ({settings.scale_lr}, {of})'
            schedule = '' if stepped.schedule is None else f', {type(stepped.schedule).__name__}'
            clip = '' if stepped.clip is None else f', clip {stepped.clip:g}'
            said.append(f'{name}: {type(stepped.optimizer).__name__} at {rate}{schedule}{clip}')
        return said

    def _batch(self) -> str:
        trainer = self.trainer
        strategy = trainer.strategy
        factors = {'a rank': trainer.dataloader.per_rank(strategy.world_size)}
        factors |= {'ranks': strategy.world_size, 'micro-batches': strategy.accumulate}
        told = ' x '.join(f'{count} {what}' for what, count in factors.items() if what == 'a rank' or count > 1)
        return f'{trainer.batch_size} images' + (f' ({told})' if ' x ' in told else '')

    def _saved(self) -> str:
        found = [*self._callbacks(CheckpointCallback)]
        if not found:
            return 'no checkpoints'
        kept = found[-1].retention.keep_last
        return f'every {found[-1].interval:,} steps and at the end' + ('' if kept is None else f', the newest {kept} are kept')

    def _evaluated(self) -> str:
        said = []
        for callback in self._callbacks(EvalCallback):
            limit = '' if callback.limit is None else f', on {callback.limit:,} images'
            what = 'losses ' if isinstance(callback, ValidateCallback) else ''
            said.append(f'{what}every {callback.interval:,} steps and at the end{limit}')
        return '; '.join(said) or 'not during the training'

    def _logged(self) -> str:
        every = [f'every {callback.interval:,} steps' for callback in self._callbacks(LogCallback)]
        return ', '.join([*every, f'in {self.trainer.journal.path}'])

    def _watch(self) -> str:
        return ', '.join(output.unbroken(place) for callback in self._callbacks(BackendsCallback) for place in callback.places)

    def _callbacks(self, kind: type[Any]) -> list[Any]:
        return [callback for callback in self.trainer.callbacks.values() if isinstance(callback, kind)]

    def end(self) -> None:
        trainer = self.trainer
        seconds, steps = time.monotonic() - self.started, trainer.step - self.first
        try:
            lines = journal.read(trainer.journal.path)
        except UserError:  # the disk was full, say: what was lost is counted elsewhere
            lines = []
        rate = f', {steps * trainer.batch_size / seconds:.1f} images/s with evaluations' if steps and seconds else ''
        saved = [callback.folder / f'iter_{trainer.step}' for callback in self._callbacks(CheckpointCallback)]
        rows = {
            'loss': losses(lines),
            'figures': figures(lines),
            'checkpoint': ', '.join(str(path) for path in saved if path.exists()),
            'log': str(trainer.journal.path),
            'watch': self._watch(),
        }
        tell(f'trained {steps:,} steps in {clock(seconds)}{rate}: {trainer.work_dir}', rows)


class Passing:
    """The blocks of a pass over a split: ``vq.val``, ``vq.test``, ``vq.sample``, tokenising."""

    def __init__(self, doing: str, runner: Validator, files: Sequence[str], context: RunContext) -> None:
        self.doing, self.runner, self.files = doing, runner, list(files)
        self.started = time.monotonic()
        if is_first_process():
            context.announce = self.begin

    def begin(self) -> None:
        runner = self.runner
        count = f'{runner.total:,} of ' if runner.limit is not None else ''
        rows = {
            'weights': ', '.join(self.files),
            'device': on_device(runner.strategy),
            'images': count + describe(runner.dataset),
            'model': count_parts(runner.model, training=False),
            'codes': describe_codes(spec_of(runner.model, runner.dataset)),
            'metrics': ', '.join(runner.metrics),
            **runner.about(),
        }
        self.started = time.monotonic()
        tell(f'{self.doing} {runner.context.name} into {runner.work_dir}', rows)

    def end(self, places: Mapping[str, object]) -> None:
        """``places``: what was written -> where it is."""
        rows = {name: str(place) for name, place in places.items()}
        tell(f'done in {clock(time.monotonic() - self.started)}', rows)


def on_device(strategy: Strategy) -> str:
    """The device of this rank, and how the work is divided."""
    device = strategy.device
    name = f' ({torch.cuda.get_device_name(device)})' if device.type == 'cuda' else ''
    threads = f', threads: {torch.get_num_threads()}' if device.type == 'cpu' else ''
    ranks = f'{strategy.world_size} ranks' if strategy.world_size > 1 else '1 rank'
    return f'{device}{name}{threads}, strategy {strategy.name}, {ranks}, {getattr(strategy, "precision", "fp32")}'


def describe(dataset: Dataset) -> str:
    """``1,437 of digits/train, 10 classes``."""
    classes = '' if dataset.categories is None else f', {len(dataset.categories):,} classes'
    return f'{len(dataset):,} of {dataset.name}/{dataset.split}{classes}'


def describe_codes(spec: Spec) -> str:
    """``4 x 4 tokens of 256 codes, 128 bits an image``."""
    if spec.tokens is None:
        latent = spec.latent
        return '' if latent is None else f'latents of {latent.channels} channels in {times(latent.cells)} cells, no tokens'
    cells, books = spec.tokens.cells, spec.tokens.codebooks
    bits = math.prod(cells) * sum(map(math.log2, books))
    each = f' x {len(books)}' if len(books) > 1 else ''
    codes = times(books) if len(set(books)) > 1 else str(books[0])
    shown = f'{bits:,.0f} bits' if bits == round(bits) else f'{bits:,.1f} bits'
    pixels = '' if spec.image is None else f', {bits / math.prod(spec.image):.3g} bits a pixel'
    return f'{times(cells)}{each} tokens of {codes} codes, {shown} an image{pixels}'


def times(numbers: Sequence[int]) -> str:
    return ' x '.join(map(str, numbers))


def epochs(trainer: Trainer) -> str:
    return f'{trainer.iters * trainer.batch_size / max(len(trainer.dataset), 1):.3g} epochs'


def count_parts(model: Task, training: bool = True) -> str:
    """Parameters by the parts of the model; in a training those that learn, and those that do not."""
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        parts.update(child.named_children() if isinstance(child, Tokenizer) else {name: child})
    seen: set[nn.Parameter] = set()
    counts: dict[bool, dict[str, int]] = {True: {}, False: {}}
    for name, module in [*parts.items(), ('others', model)]:
        for parameter in module.parameters():
            if parameter not in seen:
                seen.add(parameter)
                found = counts[parameter.requires_grad or not training]
                found[name] = found.get(name, 0) + parameter.numel()
    said = []
    for learns, found in counts.items():
        listed = ', '.join(f'{name} {short(count)}' for name, count in found.items())
        what = '' if not training else ' trained' if learns else ' frozen'
        if found:
            said.append(f'{short(sum(found.values()))} parameters{what}: {listed}')
    return '; '.join(said)


def short(count: int) -> str:
    """``82.4k``, ``14.7M``."""
    for size, unit in ((10**9, 'B'), (10**6, 'M'), (10**3, 'k')):
        if count >= size:
            return f'{count / size:.3g}{unit}' if count < 1000 * size else f'{count / size:,.0f}{unit}'
    return str(count)


def losses(lines: Sequence[Mapping[str, Any]]) -> str:
    """The totals of the first and the last interval of the log."""
    train = [line for line in lines if line['kind'] == 'train']
    names = [name for name in (train[-1] if train else ()) if name == 'total' or name.endswith('/total')]
    first, last = (train[0], train[-1]) if train else ({}, {})
    return ', '.join(f'{name} {first[name]:.4f} -> {last[name]:.4f}' for name in names if isinstance(first.get(name), float))


def figures(lines: Sequence[Mapping[str, Any]]) -> str:
    """The best value of each figure whose better direction is known, by the step that has it."""
    measured = [line for line in lines if line['kind'] == 'eval']
    names = [name for name in (measured[-1] if measured else ()) if direction(name)]
    names.sort(key=lambda name: name in PIXEL_ERRORS)  # the order is kept otherwise
    best: dict[int, list[str]] = {}
    for name in names[:MOST_FIGURES]:
        found = [(line[name], line['step']) for line in measured if isinstance(line.get(name), int | float)]
        found = [(value, step) for value, step in found if math.isfinite(value)]
        if found:
            value, step = max(found, key=lambda pair: (direction(name) * pair[0], pair[1]))
            best.setdefault(step, []).append(f'{name} {value:.4g}')
    return 'best ' + '; '.join(f'{", ".join(said)} at step {step}' for step, said in best.items()) if best else ''
