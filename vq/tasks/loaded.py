"""The object that ``vq.load`` returns for the run of a generator: it draws images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from vq.core.class_names import class_numbers
from vq.core.conditions import Condition
from vq.core.drawing import Drawn, Wanted
from vq.core.errors import UserError
from vq.core.records import to_uint8
from vq.core.specs import TokenSpec, in_words
from vq.data.inputs import Form, Images, Intake, ValueRange, check_form, give, take_tokens
from vq.interfaces import Generator, Task, Tokenizer
from vq.interfaces.conditions import Asked, Kind
from vq.interfaces.drawing import Draws, draws_images, kinds_of
from vq.interfaces.pretrained import frozen_parts
from vq.io.runs import Run, Weights
from vq.io.weights import load_model_from
from vq.registries import VQTaskRegistry
from vq.tasks.asked import NOUNS
from vq.tasks.sequence_modeling.task import first_half

TOKENS = 2**15  # drawn at once, unless ``batch_size`` is given: 128 images of 256 tokens

Classes: TypeAlias = int | str | Sequence[int | str] | None  # by number or by name


class LoadedGenerator:
    """A task that draws, with its tokenizer, on one device, in eval mode. Settings of drawing default to those of the config.

    ``class_names``: the name of each class; () if classes have no names. Methods that make images take ``to``: 'tensor'
    (uint8 (B, 3, H, W)), 'numpy' (uint8 (B, H, W, 3)) or 'pil' (a list).
    """

    def __init__(
        self, task: Draws, device: torch.device, source: str, intake: Intake, class_names: Sequence[str] = ()
    ) -> None:
        self.task: Any = cast(Task, task).to(device).eval()
        self.device, self.source, self.intake = device, source, intake
        self.class_names = tuple(class_names) if len(class_names) == self.task.classes else ()

    @property
    def generator(self) -> Generator:
        """The generator of tokens, of a task that has one."""
        found: Generator = self.task.generator
        return found

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that makes the images."""
        found: Tokenizer = self.task.codes
        return found

    @property
    def tokens(self) -> TokenSpec | None:
        """The tokens of an image; None for a task that draws none."""
        found = getattr(self.task, 'generator', None)
        return found.tokens if isinstance(found, Generator) else None

    def draw(
        self,
        classes: Classes = None,
        count: int | None = None,
        text: str | Sequence[str] | None = None,
        layout: Condition | None = None,
        negative: str | Sequence[str] | None = None,
        guidance: float | None = None,
        seed: int = 3407,
        given: Tensor | None = None,
        keep: Tensor | None = None,
        watch: Callable[[float, Callable[[], Tensor] | None], None] | None = None,
        **settings: float | str,
    ) -> Iterator[Drawn]:
        """Batches of new images, or of what they are made of; see ``sample``.

        ``watch``: told after each step the share of the work that is done, and what makes images of the rows that are drawn
        now, if they have a form yet. An exception of it ends the drawing.
        """
        texts, away = ([one] if isinstance(one, str) else one for one in (text, negative))
        asked = Asked(self._classes(classes), texts, layout, away)
        several = max(len(part) for part in (asked.classes or (), asked.text or (), asked.layout or ()))
        turns = several or (self.task.classes if asked.classes is None else 0)
        rows = len(given) if given is not None else turns if count is None and (turns or classes is not None) else count or 1
        if rows < 1 or (count is not None and count < 1):
            raise UserError(f'{rows if count is None else count} images are requested', 'Draw 1 or more.')
        task = self.task.drawing({**settings, **({} if guidance is None else {'guidance': guidance})})
        at_once = self.intake.batch_size or (
            self.intake.rows(*self.intake.image_size) if self.tokens is None else max(1, TOKENS // self.tokens.count)
        )
        for start in range(0, rows, at_once):
            part = slice(start, min(start + at_once, rows))
            ids = [*range(part.start, part.stop)]
            condition = self.task.condition(asked, ids, self.device)
            kept = None if keep is None else keep.to(self.device)
            told = None if watch is None else functools.partial(_tell, watch, start / rows, len(ids) / rows)
            with torch.no_grad():
                yield task.draw(Wanted(ids, seed, condition, None if given is None else given[part], kept, told))

    def sample_tokens(
        self, classes: Classes = None, count: int | None = None, given: Tensor | None = None, **how: Any
    ) -> Tensor:
        """Tokens int64 (B, *tokens.shape); see ``sample``. Where ``keep`` (*tokens.shape) is set: from ``given``."""
        if self.tokens is None:
            raise UserError(f'{type(self.task).__name__} draws no tokens', 'Use sample.')
        if given is not None:
            given = take_tokens(given, self.tokens.codebook_size, self.tokens.shape).to(self.device)
        found = [part.tokens for part in self.draw(classes, count, given=given, **how) if part.tokens is not None]
        return torch.cat(found)

    def sample(self, classes: Classes = None, count: int | None = None, to: Form = 'tensor', **how: Any) -> Any:
        """New images: ``count`` of them, or one per class. Image i is of class ``classes[i mod n]``, of ``text[i mod n]``, or
        of row i mod n of ``layout``, a Condition; models of several conditions take them together. ``negative``: texts in
        place of that of no condition, which guidance leads away from.

        A class is a number, or a name in ``class_names``. Without ``classes``, all classes are taken in turn. Further settings
        (``guidance``, ``seed``, and those of the task, such as temperature, top_k, top_p, min_p) replace those of the config.
        The random numbers of image i depend on the seed and i alone.
        """
        check_form(to)
        made = []
        for drawn in self.draw(classes, count, **how):
            with torch.no_grad():
                found = drawn.images()
            if found is None:
                raise self.tokenizer.has_no_pixels()
            made.append(to_uint8(found))
        return give(torch.cat(made), to)

    def complete(
        self,
        images: Images,
        classes: Classes = None,
        keep: Tensor | None = None,
        value_range: ValueRange | None = None,
        to: Form = 'tensor',
        **how: Any,
    ) -> Any:
        """Images, redrawn except in the cells of ``keep``, or of the first half. ``keep`` has the shape of the tokens, or of
        the latent where tokens are continuous.

        The tokens of kept cells do not change. Their pixels can change next to redrawn cells, because the decoder's receptive
        field covers more than one cell.
        """
        check_form(to)
        latent = getattr(self.task, 'given', None)  # of a generator of continuous tokens
        if self.tokens is None and latent is None:
            raise UserError(
                f'{type(self.task).__name__} draws no tokens',
                'Only generators of tokens, also continuous ones, complete images.',
            )
        with torch.no_grad():
            batches = self.intake.batches(images, self.device, value_range)
            given = torch.cat([self.tokenizer.tokenize(batch) if latent is None else latent(batch) for batch in batches])
        cells = tuple(given.shape[2:]) if self.tokens is None else self.tokens.shape
        held = first_half(cells, self.device) if keep is None else keep
        if self.tokens is None:
            return self.sample(classes, None, to, given=given, keep=held, **how)
        return self.detokenize(self.sample_tokens(classes, None, given, keep=held, **how), to)

    @torch.no_grad()
    def detokenize(self, tokens: Any, to: Form = 'tensor') -> Any:
        """Tokens -> images."""
        check_form(to)
        if not self.tokenizer.can_decode or self.tokens is None:
            raise self.tokenizer.has_no_pixels()
        found = take_tokens(tokens, self.tokens.codebook_size, self.tokens.shape)
        parts = torch.split(found, self.intake.rows(*self.intake.image_size))
        return give(torch.cat([to_uint8(self.tokenizer.detokenize(part.to(self.device))) for part in parts]), to)

    def _classes(self, classes: Classes) -> list[int] | None:
        if classes is None:
            return None
        several = [classes] if isinstance(classes, Integral | str) else [*cast(Sequence[int | str], classes)]
        return class_numbers(several, self.class_names, self.task.classes, self.source)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        known = f'{self.task.classes} classes' if self.task.classes else _words(kinds_of(self.task))
        height, width = self.intake.image_size
        part = self.task if self.tokens is None else self.generator
        tokens = '' if self.tokens is None else f'{self.tokens.shape} tokens, '
        return (
            f'{type(part).__name__}({self.source}, {known}, {tokens}images of {in_words((height, width))}, on {self.device})'
        )


def _tell(
    watch: Callable[[float, Callable[[], Tensor] | None], None],
    before: float,
    part: float,
    done: int,
    steps: int | None,
    shown: Callable[[], Tensor] | None,
) -> None:
    """A step of the rows that are ``part`` of the work, as a share of all of it."""
    watch(before + (part * done / steps if steps else 0.0), shown)


def _words(kinds: Sequence[Kind]) -> str:
    return ' and '.join(NOUNS[kind] for kind in kinds) or 'unconditional'


def load_frozen(module: nn.Module, run: Run) -> None:
    """Frozen parts read their files. An error if a file is not the one that the run was trained with."""
    parts = frozen_parts(module).values()
    run.check_frozen(file for part in parts for file in part.pretrained_files())
    for part in parts:
        part.load_pretrained()


def load_generator(run: Run, weights: Weights, device: str | torch.device, intake: Intake) -> LoadedGenerator:
    """The generator of a run, with its tokenizer. The tokenizer is read from the files that the config names."""
    task = VQTaskRegistry.build(run.model, 'model')
    if not draws_images(task):
        raise UserError(f'{run.weights} holds a {type(task).__name__}, which draws no images', 'Give the run of a generator.')
    load_frozen(cast(nn.Module, task), run)
    load_model_from(cast(nn.Module, task), [run], weights=weights)
    names = run.spec.categories or run.spec.trained_on.get('names') or ()
    return LoadedGenerator(task, torch.device(device), str(run.weights), intake, names)
