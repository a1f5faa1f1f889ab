"""Drawing of all tokens at once, in a few steps: what masked generators share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.drawing import Wanted
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.specs import TokenSpec
from vq.generators.networks.bidirectional import HiddenTokens
from vq.interfaces import Generator
from vq.sampling.guidance import guided
from vq.sampling.masked import (
    SCHEDULES,
    MaskSchedule,
    confidence,
    halton_order,
    hidden_counts,
    most_confident,
    steps_of_order,
    uniforms_of_tokens,
)
from vq.sampling.streams import uniforms

Order = Literal['confidence', 'halton']


class IterativeGenerator(Generator):
    """All tokens except given ones are hidden at first. Step t of T draws all hidden tokens, fixes some of these and hides the
    others again; ``schedule`` gives the number that stays hidden.

    ``order``: 'confidence' fixes the tokens with the highest log p + choice_temperature (1 - t / T) g, where g is Gumbel noise
    (Chang et al. 2022); 'halton' fixes positions in the order of a Halton sequence over the grid (Besnier et al. 2025). If
    there are fewer free tokens than ``steps``, every step fixes one.

    Tokens are (h, w) or (L,). With several codes per cell, each code would need its own position and codebook.

    Subclasses build ``network``. Its inputs are tokens int64 and hidden bool (B, L), category int64 and dropped bool (B,); its
    output is logits (B, L, K).
    """

    network: HiddenTokens

    def __init__(
        self,
        cells: tuple[int, ...],
        codebooks: tuple[int, ...],
        classes: int,
        label_drop: float,
        steps: int,
        schedule: MaskSchedule,
        order: Order,
        choice_temperature: float,
    ) -> None:
        super().__init__()
        self.tokens = TokenSpec(tuple(cells), tuple(codebooks))
        if len(self.tokens.shape) not in (1, 2) or len(self.tokens.codebooks) > 1:
            raise ConfigError(
                f'masked generation of tokens of the shape {self.tokens.shape}: there are several codes per cell',
                'Use a tokenizer with one code per cell, or an autoregressive generator.',
            )
        if schedule not in SCHEDULES:
            raise ConfigError(f"schedule is '{schedule}'", f'Write one of {", ".join(SCHEDULES)}.')
        if order not in ('confidence', 'halton'):
            raise ConfigError(f"order is '{order}'", "Write 'confidence' or 'halton'.")
        if steps < 1:
            raise ConfigError(f'steps is {steps}', 'Give 1 or more decoding steps.')
        if not 0 <= label_drop <= 1:
            raise ConfigError(f'label_drop is {label_drop}', 'Choose a share between 0 and 1; 0.1 is usual.')
        if choice_temperature < 0:
            raise ConfigError(f'choice_temperature is {choice_temperature}', 'Choose 0 (no noise) or more; 4.5 is usual.')
        self.classes = classes
        self.label_drop = label_drop
        self.steps = steps
        self.schedule: MaskSchedule = schedule
        self.order = order
        self.choice_temperature = choice_temperature
        self.length = self.tokens.count

    def prepare(self, flat: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Tokens (B, L) -> uniform numbers (B, 1 + L), the category (B,), and which categories are dropped (B,).

        In training a share ``label_drop`` of the categories is dropped, for guidance. In evaluation none is, and the numbers
        follow from the tokens. So a validation loss does not depend on batches, ranks or random generators.
        """
        category = self._known(None if condition is None else condition.category)
        if self.training:
            drawn = torch.rand(len(flat), self.length + 1, device=flat.device)
            dropped = None if category is None else torch.rand(len(flat), device=flat.device) < self.label_drop
        else:
            drawn, dropped = uniforms_of_tokens(flat, self.length + 1), None
        if condition is not None and condition.null is not None and category is not None:
            dropped = condition.null if dropped is None else dropped | condition.null
        return drawn, category, dropped

    @torch.no_grad()
    def generate(self, wanted: Wanted, sampler: Callable[[Tensor, Tensor], Tensor], guidance: Callable[..., float]) -> Tensor:
        """``guidance`` is called for every decoding step. Without a category, images are drawn without a class.

        The two predictions of guidance come from one batch of twice the rows. There is one host sync before the first step
        and one after the last.
        """
        device = self.network.hidden_token.device
        category = self._known(wanted.category)
        empty = None if wanted.condition is None else wanted.condition.null
        tokens, hidden, free = self._start(wanted, device)
        counts = hidden_counts(len(free), self.steps, self.schedule)
        if not counts or not wanted.ids:
            return tokens.view(len(tokens), *self.tokens.shape)
        noise = self._uniforms(wanted, len(counts), 'tokens', device)
        choose = self._chosen_by_order(free, counts, device) if self.order == 'halton' else None
        luck = self._uniforms(wanted, len(counts), 'confidence', device) if choose is None else noise
        before = len(free)
        for step, after in enumerate(counts):
            logits = self._logits(tokens.clamp(min=0), hidden, category, empty, float(guidance(step, len(counts))))
            drawn = sampler(logits, noise[:, step])  # -1 where logits have NaN or infinity
            if choose is not None:
                fixed = next(choose)
            else:
                temperature = self.choice_temperature * (1 - (step + 1) / len(counts))
                score = confidence(logits, drawn.clamp(min=0), temperature, luck[:, step])
                fixed = most_confident(score, hidden, before - after)
            tokens = torch.where(fixed, drawn, tokens)
            hidden = hidden & ~fixed
            before = after
            if wanted.watch is not None:
                wanted.watch(step + 1, len(counts), None)
        if (tokens < 0).any():
            raise RunFailure(
                'the network gave logits with NaN or infinity, so no token could be drawn',
                'Check the weights that were loaded; try precision fp32 or bf16 in place of fp16.',
            )
        return tokens.view(len(tokens), *self.tokens.shape)

    def _known(self, category: Tensor | None) -> Tensor | None:
        """The category for the network: None if the generator has no classes."""
        if not self.classes:
            return None
        if category is None and not self.label_drop:
            raise UserError(
                'this generator was trained with the class of every image, and cannot draw without one',
                'Give classes, or train with label_drop above 0.',
            )
        return category

    def _start(self, wanted: Wanted, device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
        """Tokens (B, L), zeros where they are hidden; bool (B, L), which are hidden; the positions to draw."""
        rows = len(wanted.ids)
        category, given, keep = wanted.category, wanted.given, wanted.keep
        if category is not None and not self.classes:
            raise UserError('images of a class are requested, and this generator has no classes', 'Leave category out.')
        if (given is None) != (keep is None):
            raise UserError('only one of given and keep is set', 'Set both: given has tokens, keep says which are kept.')
        if keep is None or given is None:
            keep = torch.zeros(self.tokens.shape, dtype=torch.bool, device=device)
            given = torch.zeros(rows, *self.tokens.shape, dtype=torch.int64, device=device)
        for name, value, shape in (
            ('category', category, (rows,)),
            ('given', given, (rows, *self.tokens.shape)),
            ('keep', keep, self.tokens.shape),
        ):
            if value is not None and tuple(value.shape) != shape:
                raise UserError(f'{name} has the shape {tuple(value.shape)}', f'For these images it is {shape}.')
        keep = keep.flatten().to(device, torch.bool)
        tokens = given.flatten(1).to(device).masked_fill(~keep, 0)
        bad = torch.stack([outside(tokens, self.tokens.codebook_size), outside(category, self.classes).to(device)])
        *kept, bad_token, bad_category = torch.cat([keep, bad]).tolist()
        if bad_token:
            raise UserError('a given token is not in the codebook', f'Tokens are 0 to {self.tokens.codebook_size - 1}.')
        if bad_category:
            raise UserError(f'a category is not among the {self.classes} classes', f'They are 0 to {self.classes - 1}.')
        return tokens, (~keep).expand(rows, -1), [position for position, stays in enumerate(kept) if not stays]

    def _uniforms(self, wanted: Wanted, steps: int, purpose: str, device: torch.device) -> Tensor:
        """(B, steps, L): the random numbers of all steps in one copy, so that no step waits for one."""
        return uniforms(wanted.seed, wanted.ids, steps, self.length, purpose=purpose).to(device)

    def _chosen_by_order(self, free: list[int], counts: list[int], device: torch.device) -> Iterator[Tensor]:
        """bool (L,) for each step: the positions that the step fixes."""
        hidden = set(free)
        order = [position for position in halton_order(self.tokens.shape) if position in hidden]
        fixed_at = steps_of_order(order, self.length, counts).to(device)
        return (fixed_at == step for step in range(len(counts)))

    def _logits(self, tokens: Tensor, hidden: Tensor, category: Tensor | None, empty: Tensor | None, scale: float) -> Tensor:
        """fp32 (B, L, K):  l = l_0 + scale (l_c - l_0),  l_0 without a category; one batch of twice the size gives both."""
        if category is None or scale == 1:
            logits: Tensor = self.network(tokens, hidden, category, empty)
            return logits.float()
        if not self.label_drop:
            raise UserError(
                f'guidance {scale} needs predictions without a class, and this generator was trained with label_drop=0',
                'Sample with guidance 1, or train with label_drop above 0.',
            )
        rows = len(tokens)
        dropped = torch.arange(2 * rows, device=tokens.device) >= rows
        if empty is not None:
            dropped = dropped | empty.repeat(2)
        both = self.network(tokens.repeat(2, 1), hidden.repeat(2, 1), category.repeat(2), dropped).float()
        conditional, unconditional = both.chunk(2)
        return guided(conditional, unconditional, scale)


def outside(ids: Tensor | None, size: int) -> Tensor:
    """Whether any id is outside of 0 to size - 1: a bool tensor on the device of the ids."""
    return torch.tensor(False) if ids is None else ((ids < 0) | (ids >= size)).any()
