"""Values that a model cannot take over from a file: NaN, infinity, imaginary parts, whole numbers where it has fractions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from vq.core.errors import UserError, listing

SHOWN = 3


def check_values(given: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Raise if copying ``given`` into tensors ``own`` of the same names would lose a part of them or spoil the model.

    A half or double precision number is converted. Infinity is accepted where the model has the same, as in a mask, and where
    ``own`` is on the meta device, which has no values to compare.
    """
    found = list(_faults(given, own))
    if found:
        shown = '; '.join(found[:SHOWN]) + (f'; and {len(found) - SHOWN} more' if len(found) > SHOWN else '')
        raise UserError(
            f'{source} holds values that are no weights: {shown}',
            'The file is damaged, or its run diverged: take another copy, or an earlier checkpoint.',
        )


def fill_exactly(network: nn.Module, given: Mapping[str, Tensor], source: str, what: str, wanted: str) -> None:
    """Load ``given``, of just the names and shapes of ``network``. An error names ``what`` it is not, and ``wanted``."""
    own = network.state_dict()
    odd = [name for name in own if name not in given or given[name].shape != own[name].shape]
    odd += [name for name in given if name not in own]
    if odd:
        raise UserError(
            f'{source} is not the {what}\n  missing, unexpected, or of another shape: {listing(odd, most=4)}',
            f'Give {wanted}, or the sizes of your file.',
        )
    check_values(given, own, source)
    network.load_state_dict(given)


def _faults(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    for name, value in given.items():
        target = own.get(name)
        if target is not None and (fault := _misfit(value, target)):
            yield f"'{name}' {fault}"
        elif _has_fractions(value) and not _is_finite(value):
            if bool(value.isnan().any()):
                yield f"'{name}' holds NaN"
            elif target is not None and not target.is_meta and not _same_holes(value, target):
                yield f"'{name}' holds infinite numbers"


def _has_fractions(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _misfit(value: Tensor, target: Tensor) -> str:
    if value.is_complex() and not target.is_complex():
        return f'is {_kind(value)}, and its imaginary part would be dropped ({_kind(target)} in the model)'
    if _has_fractions(target) and not _has_fractions(value):
        return f'is {_kind(value)}, and the model has {_kind(target)}'
    if not _has_fractions(target) and _has_fractions(value) and not torch.equal(value.to(target.dtype).to(value), value):
        return f'is {_kind(value)} with fractions, and the model has {_kind(target)}'
    return ''


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix('torch.')


def _is_finite(value: Tensor) -> bool:
    """By a sum first, which takes no memory; a sum that overflows is decided element by element."""
    if value.element_size() == 1:
        return bool(value.float().isfinite().all())
    total = value.sum(dtype=torch.float32 if value.element_size() == 2 else None)
    return bool(total.isfinite()) or bool(value.isfinite().all())


def _same_holes(value: Tensor, target: Tensor) -> bool:
    """Whether the infinite numbers of ``value`` are infinite in the model too, with the same sign."""
    holes = value.isinf()
    return value.shape == target.shape and torch.equal(value[holes].to(target.dtype), target.detach().cpu()[holes])
