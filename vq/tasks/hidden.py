"""What losses on hidden features need of a root: outputs of modules inside of it, through the heads of the losses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.errors import ConfigError, listing, nearest
from vq.interfaces import HiddenLoss, Loss
from vq.nn.precision import no_autocast

LATENT = 'latent'  # the place that is the output of the encoder
LIMIT = 1e4  # of the ratio of gradient norms
TINY = 1e-30


class Tap:
    """A forward hook that keeps the last output of a module while it is open."""

    def __init__(self) -> None:
        self.open = False
        self.kept: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.open:
            self.kept = output[0] if isinstance(output, tuple) else output


class Hidden(nn.Module):
    """The heads of losses on hidden features, for the root whose optimizer trains them.

    In the root's forward:  ``with hidden.listening(): ...``, then ``hidden(cells, latent)``.
    """

    def __init__(self, task: nn.Module, losses: Mapping[str, Loss], names: Sequence[str]) -> None:
        super().__init__()
        self.losses = {name: loss for name in names if isinstance(loss := losses[name], HiddenLoss)}
        self.heads = nn.ModuleDict({name: loss.head for name, loss in self.losses.items()})
        self.taps = {loss.place: Tap() for loss in self.losses.values() if loss.place != LATENT}
        modules = dict(task.named_modules())
        for name, loss in self.losses.items():
            if loss.place != LATENT and modules.get(loss.place) is None:
                near = nearest(loss.place, [path for path in modules if not path.startswith('losses.')])
                raise ConfigError(
                    f"the loss '{name}' acts at '{loss.place}', which the model does not have{near}",
                    "Give 'latent', or the path of a module from the task on, e.g. tokenizer.decoder.levels.1.",
                )
        for place, tap in self.taps.items():
            modules[place].register_forward_hook(tap)
        if any(loss.adaptive for loss in self.losses.values()):
            import torch._functorch.config as compiling

            compiling.donated_buffer = False  # compiled parts keep what a second backward needs, as eager ones do

    @contextmanager
    def listening(self) -> Iterator[None]:
        for tap in self.taps.values():
            tap.open = True
        try:
            yield
        finally:
            for tap in self.taps.values():
                tap.open = False

    def forward(self, cells: tuple[int, ...], latent: Tensor | None = None) -> dict[str, Tensor]:
        """Name of the loss -> projected features (B, D, h, w). ``cells``: of the tokens."""
        found: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            hidden = latent if loss.place == LATENT else self.taps[loss.place].kept
            if hidden is None:
                raise ConfigError(
                    f"the loss '{name}' acts at '{loss.place}', which this model did not run in a step",
                    'Take a module that runs once in every step.',
                )
            found[name] = self.heads[name](as_map(hidden, cells, name, loss))
        for tap in self.taps.values():
            tap.kept = None
        return found


def as_map(hidden: Tensor, cells: tuple[int, ...], name: str, loss: HiddenLoss) -> Tensor:
    """(B, C, h, w). Of tokens (B, T, C) the last h * w * n, n for each cell; a cell has the features of its last token."""
    if hidden.ndim == 3 and len(cells) == 2:
        count = math.prod(cells)
        per_cell = hidden.shape[1] // count
        if per_cell:
            hidden = hidden[:, hidden.shape[1] - count * per_cell :][:, per_cell - 1 :: per_cell]
            hidden = hidden.transpose(1, 2).reshape(len(hidden), -1, *cells)
    if hidden.ndim != 4 or hidden.shape[1] != loss.channels:
        raise ConfigError(
            f"the loss '{name}' takes maps of {loss.channels} channels, and '{loss.place}' gives {tuple(hidden.shape)}",
            f'Set its channels to {hidden.shape[1]}.' if hidden.ndim == 4 else 'Take a module that gives one vector per cell.',
        )
    return hidden


def gradient_ratio(latent: Tensor, images: Tensor, outer: Tensor, value: Tensor, scale: float) -> Tensor:
    """|gradient of the image losses| / |gradient of ``value``| at ``latent`` (B, C, h, w), over the images of all ranks.

    ``images`` is a tensor that the image losses depend on alone, and ``outer`` their gradient there, times ``scale``. At most
    1e4, and 0 without image gradients.
    """
    with no_autocast(latent.device):
        (first,) = torch.autograd.grad(images, latent, outer.to(images.dtype), retain_graph=True)
        (second,) = torch.autograd.grad(value, latent, torch.full_like(value, scale), retain_graph=True)
    squares = collectives.all_reduce(torch.stack([part.float().square().sum() for part in (first, second)]))
    return (squares[0] / squares[1].clamp(min=TINY)).sqrt().clamp(max=LIMIT)


def hidden_of(task: nn.Module, losses: Mapping[str, Loss], names: Sequence[str]) -> Hidden | None:
    """None without losses on hidden features."""
    wrong = [name for name in names if not isinstance(losses[name], HiddenLoss)]
    if wrong:
        raise ConfigError(f'losses on hidden features without a head: {listing(wrong)}', 'Derive them from HiddenLoss.')
    return Hidden(task, losses, names) if names else None
