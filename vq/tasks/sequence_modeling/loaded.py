"""The object that ``vq.load`` returns for the run of a generator: it draws images."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import UserError, listing, nearest
from vq.core.records import to_uint8
from vq.data.inputs import Form, Images, Intake, ValueRange, check_form, give, take_tokens
from vq.interfaces import Generator, Tokenizer
from vq.interfaces.pretrained import frozen_parts
from vq.io.runs import Run, Weights
from vq.io.weights import load_model_from
from vq.registries import VQGuidanceRegistry, VQSamplerRegistry, VQTaskRegistry
from vq.tasks.sequence_modeling.task import SequenceModeling, first_half

TOKENS = 2**15  # drawn at once, unless ``batch_size`` is given: 128 images of 256 tokens

Classes: TypeAlias = int | str | Sequence[int | str] | None


class LoadedGenerator:
    """A generator and its tokenizer on one device, in eval mode. Sampler and guidance default to those of the config.

    Methods that make images take ``to``: 'tensor' (uint8 (B, 3, H, W)), 'numpy' (uint8 (B, H, W, 3)) or 'pil' (a list).
    """

    def __init__(
        self, task: SequenceModeling, device: torch.device, source: str, intake: Intake, class_names: Sequence[str] = ()
    ) -> None:
        self.task = task.to(device).eval()
        self.device, self.source, self.intake, self.class_names = device, source, intake, tuple(class_names)

    @property
    def generator(self) -> Generator:
        return self.task.generator

    @property
    def tokenizer(self) -> Tokenizer:
        return self.task.codes

    @torch.no_grad()
    def sample_tokens(
        self,
        classes: Classes = None,
        count: int | None = None,
        guidance: float | None = None,
        seed: int = 3407,
        given: Tensor | None = None,
        keep: Tensor | None = None,
        **settings: float,
    ) -> Tensor:
        """Tokens int64 (B, *tokens.shape); see ``sample``. Where ``keep`` (*tokens.shape) is set: from ``given``."""
        if given is not None:
            given = take_tokens(given, self.tokenizer.codebook_size, self.generator.tokens.shape).to(self.device)
        labels = self._labels(classes, count if given is None else len(given))
        rows = len(labels) if labels is not None else (count or 1) if given is None else len(given)
        if rows < 1 or (count is not None and count < 1):
            raise UserError(f'{rows if count is None else count} images are requested', 'Draw 1 or more.')
        category = None if labels is None else torch.tensor(labels, device=self.device)
        kept = None if keep is None else keep.to(self.device)
        sampler, scale = self.task.sampler, self.task.guidance
        if settings:
            sampler = VQSamplerRegistry.build({'type': 'Multinomial', **settings}, 'sample')
        if guidance is not None:
            scale = VQGuidanceRegistry.build({'type': 'ConstantGuidance', 'scale': guidance}, 'sample')
        at_once, drawn = self.intake.batch_size or max(1, TOKENS // self.generator.tokens.count), []
        for start in range(0, rows, at_once):
            part = slice(start, min(start + at_once, rows))
            condition = None if category is None else Condition(category[part])
            wanted = Wanted([*range(part.start, part.stop)], seed, condition, None if given is None else given[part], kept)
            drawn.append(self.generator.generate(wanted, sampler, scale))
        return torch.cat(drawn)

    def sample(
        self,
        classes: Classes = None,
        count: int | None = None,
        guidance: float | None = None,
        seed: int = 3407,
        to: Form = 'tensor',
        **settings: float,
    ) -> Any:
        """New images: ``count`` of them, or one per class. Image i is of class ``classes[i mod n]``.

        Classes are numbers or, where the run knows them, names. Without ``classes``, all classes of the generator are taken in
        turn. Further settings (temperature, top_k, top_p, min_p) replace the sampler of the config. The random numbers of
        image i depend on the seed and i alone.
        """
        check_form(to)
        return self.detokenize(self.sample_tokens(classes, count, guidance, seed, None, None, **settings), to)

    def complete(
        self,
        images: Images,
        classes: Classes = None,
        keep: Tensor | None = None,
        value_range: ValueRange | None = None,
        to: Form = 'tensor',
        **how: Any,
    ) -> Any:
        """Images, redrawn except in the cells of ``keep`` (*tokens.shape), or of the first half.

        The tokens of kept cells do not change. Their pixels can change next to redrawn cells, because the decoder's receptive
        field covers more than one cell.
        """
        check_form(to)
        with torch.no_grad():
            batches = self.intake.batches(images, self.device, value_range)
            given = torch.cat([self.tokenizer.tokenize(batch) for batch in batches])
        held = first_half(self.generator.tokens.shape, self.device) if keep is None else keep
        return self.detokenize(self.sample_tokens(classes, None, given=given, keep=held, **how), to)

    @torch.no_grad()
    def detokenize(self, tokens: Any, to: Form = 'tensor') -> Any:
        """Tokens -> images."""
        check_form(to)
        if not self.tokenizer.can_decode:
            raise UserError(
                f'{type(self.tokenizer).__name__} makes no pixels', 'Train a decoder for it: see docs/reconstruction.md.'
            )
        found = take_tokens(tokens, self.tokenizer.codebook_size, self.generator.tokens.shape)
        parts = torch.split(found, self.intake.rows(*self.intake.image_size))
        return give(torch.cat([to_uint8(self.tokenizer.detokenize(part.to(self.device))) for part in parts]), to)

    def _labels(self, classes: Classes, count: int | None) -> list[int] | None:
        known = self.generator.classes
        if classes is None:
            chosen: list[int] = list(range(known))
        else:
            several = [classes] if isinstance(classes, Integral | str) else list(classes)  # type: ignore[arg-type]
            chosen = [self._label(one) for one in several]  # type: ignore[arg-type]
        return [chosen[place % len(chosen)] for place in range(count or len(chosen))] if chosen else ([] if known else None)

    def _label(self, wanted: int | str) -> int:
        """The number of a class that is given by number or name."""
        known = self.generator.classes
        if not known:
            raise UserError(f'class {wanted!r} is requested of a generator without classes', 'Leave classes out.')
        if isinstance(wanted, str):
            if wanted not in self.class_names:
                there = f'It knows {listing(self.class_names)}.' if self.class_names else 'The run has no names of classes.'
                raise UserError(
                    f"the generator has no class '{wanted}'{nearest(wanted, self.class_names)}",
                    f'{there} Numbers 0 to {known - 1} are taken, too.',
                )
            return self.class_names.index(wanted)
        if not 0 <= int(wanted) < known:
            raise UserError(f'class {wanted} is requested, and the generator has {known}', f'They are 0 to {known - 1}.')
        return int(wanted)

    def __repr__(self) -> str:
        known = f'{self.generator.classes} classes' if self.generator.classes else 'unconditional'
        height, width = self.intake.image_size
        return (
            f'{type(self.generator).__name__}({self.source}, {known}, {self.generator.tokens.shape} tokens, '
            f'images of {height} x {width}, on {self.device})'
        )


def load_frozen(module: nn.Module, run: Run) -> None:
    """Frozen parts read their files. An error if a file is not the one that the run was trained with."""
    parts = frozen_parts(module).values()
    run.check_frozen(file for part in parts for file in part.pretrained_files())
    for part in parts:
        part.load_pretrained()


def load_generator(run: Run, weights: Weights, device: str | torch.device, intake: Intake) -> LoadedGenerator:
    """The generator of a run, with its tokenizer. The tokenizer is read from the files that the config names."""
    if 'generator' not in run.model:
        raise UserError(f'{run.weights} holds no generator', 'Give the run of a generator.')
    task = VQTaskRegistry.build(run.model, 'model')
    load_frozen(task, run)
    load_model_from(task, [run], weights=weights)
    names = getattr(run.spec, 'categories', None) or run.spec.trained_on.get('names') or ()
    return LoadedGenerator(task, torch.device(device), str(run.weights), intake, names)
