"""The object that ``vq.load`` returns for the run of a generator: it draws images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.class_names import class_numbers
from vq.core.errors import UserError
from vq.core.records import SampleRequest, to_float, to_uint8
from vq.interfaces import Generator, Pretrained, Tokenizer
from vq.io.runs import Run, Weights
from vq.io.weights import load_model_from
from vq.registries import VQGuidanceRegistry, VQSamplerRegistry, VQTaskRegistry
from vq.tasks.sequence_modeling.task import SequenceModeling, first_half

Classes = int | str | Sequence[int | str] | None  # by number or by name


class LoadedGenerator:
    """A generator and its tokenizer on one device, in eval mode. Sampler and guidance default to those of the config.

    ``class_names``: the name of each class; () if classes have no names.
    """

    def __init__(self, task: SequenceModeling, device: torch.device, source: str, class_names: Sequence[str] = ()) -> None:
        self.task = task.to(device).eval()
        self.device, self.source = device, source
        self.class_names = tuple(class_names) if len(class_names) == self.task.generator.classes else ()

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
        """Tokens int64 (B, *token_shape); see ``sample``. Where ``keep`` (*token_shape) is set: from ``given``."""
        labels = self._labels(classes, count if given is None else len(given))
        rows = len(labels) if labels is not None else (count or 1) if given is None else len(given)
        category = None if labels is None else torch.tensor(labels, device=self.device)
        kept = None if keep is None else keep.to(self.device)
        request = SampleRequest(list(range(rows)), seed, category, None if given is None else given.to(self.device), kept)
        sampler, scale = self.task.sampler, self.task.guidance
        if settings:
            sampler = VQSamplerRegistry.build({'type': 'Multinomial', **settings}, 'sample')
        if guidance is not None:
            scale = VQGuidanceRegistry.build({'type': 'ConstantGuidance', 'scale': guidance}, 'sample')
        return self.generator.generate(request, sampler, scale)

    def sample(
        self,
        classes: Classes = None,
        count: int | None = None,
        guidance: float | None = None,
        seed: int = 3407,
        **settings: float,
    ) -> Tensor:
        """New images uint8 (B, 3, H, W): ``count`` of them, or one per class. Image i is of class ``classes[i mod n]``.

        A class is a number, or a name in ``class_names``. Without ``classes``, all classes are taken in turn. Further settings
        (temperature, top_k, top_p, min_p) replace the sampler of the config. The random numbers of image i depend on the seed
        and i alone.
        """
        return self.detokenize(self.sample_tokens(classes, count, guidance, seed, None, None, **settings))

    def complete(self, images: Tensor, classes: Classes = None, keep: Tensor | None = None, **how: Any) -> Tensor:
        """Images uint8 or float (B, 3, H, W), redrawn except in the cells of ``keep`` (*token_shape), or of the first half.

        The tokens of kept cells do not change. Their pixels can change next to redrawn cells, because the decoder's receptive
        field covers more than one cell.
        """
        with torch.no_grad():
            given = self.tokenizer.tokenize(to_float(images.to(self.device)) if images.dtype == torch.uint8 else images)
        held = first_half(self.generator.token_shape, self.device) if keep is None else keep
        return self.detokenize(self.sample_tokens(classes, None, given=given, keep=held, **how))

    @torch.no_grad()
    def detokenize(self, tokens: Tensor) -> Tensor:
        """Tokens -> images uint8 (B, 3, H, W)."""
        if not self.tokenizer.can_decode:
            raise UserError(
                f'{type(self.tokenizer).__name__} makes no pixels', 'Train a decoder for it: see docs/reconstruction.md.'
            )
        return to_uint8(self.tokenizer.detokenize(tokens.to(self.device)))

    def _labels(self, classes: Classes, count: int | None) -> list[int] | None:
        known = self.generator.classes
        if classes is None and not known:
            return None
        asked = [*range(known)] if classes is None else [classes] if isinstance(classes, int | str) else [*classes]
        chosen = class_numbers(asked, self.class_names, known, self.source)
        return [chosen[place % len(chosen)] for place in range(count or len(chosen))] if chosen else []

    def __repr__(self) -> str:
        known = f'{self.generator.classes} classes' if self.generator.classes else 'unconditional'
        return (
            f'{type(self.generator).__name__}({self.source}, {known}, {self.generator.token_shape} tokens, on {self.device})'
        )


def frozen_parts(module: nn.Module, run: Run) -> list[Pretrained]:
    """The frozen parts that read files of their own; an error if a file is not the one that the run was trained with."""
    parts: list[Pretrained] = [part for part in module.modules() if isinstance(part, Pretrained) and part.frozen]
    run.check_frozen(file for part in parts for file in part.pretrained_files())
    return parts


def load_generator(run: Run, weights: Weights, device: str | torch.device) -> LoadedGenerator:
    """The generator of a run, with its tokenizer. The tokenizer is read from the files that the config names."""
    if 'generator' not in run.model:
        raise UserError(f'{run.weights} holds no generator', 'Give the run of a generator.')
    task = VQTaskRegistry.build(run.model, 'model')
    for part in frozen_parts(task, run):
        part.load_pretrained()
    load_model_from(task, [run], weights=weights)
    return LoadedGenerator(task, torch.device(device), str(run.weights), run.spec.categories)
