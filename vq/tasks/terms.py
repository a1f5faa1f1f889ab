"""A task's loss terms by where they act, checked when the task is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from torch import nn

from vq.core.errors import ConfigError, listing, nearest
from vq.interfaces import ActsOn, Loss
from vq.interfaces.losses import TERMS

TOTAL = 'total'  # the sum of all terms in logs and results
Terms = dict[ActsOn, tuple[str, ...]]


def terms_of(task: str, losses: Mapping[str, Loss], takes: Sequence[ActsOn], taken: Mapping[str, str] | None = None) -> Terms:
    """The names of the terms that act at each of the places ``takes``, in their order.

    An error if a term acts elsewhere, if its ``forward`` takes other arguments than its place gives, or if it has the name of
    another term of the task: ``taken`` are these names, with what they are.
    """
    check_names(task, losses, taken or {})
    found: Terms = dict.fromkeys(takes, ())
    for name, loss in losses.items():
        place = _place_of(name, loss)
        if place not in found:
            raise ConfigError(
                f"{task} cannot use the loss '{name}' ({type(loss).__name__}): it acts on the {place}, "
                f'and losses of this task act on {listing(takes)}',
                'Leave it out, or train with a task that has what the loss acts on.',
            )
        found[place] += (name,)
    return found


def check_names(task: str, names: Iterable[str], taken: Mapping[str, str]) -> None:
    """Raise if one of these names of terms is taken: ``taken`` says by what."""
    known = {TOTAL: 'the sum of all terms', **taken}
    for name in names:
        if name in known:
            raise ConfigError(
                f"{task}: a loss is called '{name}', which is the name of {known[name]}", 'Give the loss another name.'
            )


def _place_of(name: str, loss: Loss) -> ActsOn:
    """The declared place. An error if there is no such place, or if ``forward`` does not take its arguments."""
    places, kind = get_args(ActsOn), type(loss).__name__
    if loss.acts_on not in places:
        raise ConfigError(
            f"the loss '{name}' ({kind}) declares acts_on = {loss.acts_on!r}{nearest(str(loss.acts_on), places)}",
            f'It can act on {listing(places)}.',
        )
    wanted = [*inspect.signature(TERMS[loss.acts_on].__call__).parameters][1:]
    try:
        inspect.signature(loss.forward).bind(*wanted)
    except TypeError as error:
        taken = ', '.join(inspect.signature(loss.forward).parameters)
        raise ConfigError(
            f"the loss '{name}' ({kind}) acts on the {loss.acts_on}, so it is called with ({', '.join(wanted)}), "
            f'and its forward takes ({taken})',
            'Declare where it acts by the class attribute acts_on, or change the arguments of forward.',
        ) from error
    return loss.acts_on


def check_whole(names: Sequence[str], module: nn.Module) -> None:
    """Raise if FSDP shards ``module``: between its forward and its backward some parameters are shards and some are whole."""
    if names and any(hasattr(part, 'unshard') for part in module.modules()):
        raise ConfigError(
            f'losses on parameters ({listing(names)}) need whole parameters, and FSDP shards them',
            "Use the strategy 'ddp', or leave these losses out.",
        )
