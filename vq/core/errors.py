"""The exceptions whose text is written for the user: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad usage, a bad config or a bad file. Commands print it without a traceback and exit with 2.

    ``hint`` is the last line of the message and says what to do.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = '') -> None:
        super().__init__(f'{message}\n{hint}' if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(UserError):
    """A config file, an option or an override is wrong."""


class RunFailure(UserError):
    """A run cannot continue (a loss that is not finite, a full disk). The usage is correct, so the exit code is 1."""

    exit_code = 1


def require(holds: object, message: str, hint: str = '') -> None:
    if not holds:
        raise UserError(message, hint)


def must_agree(name: str, value: object, other: str, other_value: object) -> None:
    agreed = value is None or str(value) == str(other_value)
    require(agreed, f'{name} is {value} and {other} is {other_value}', 'Leave one of the two out: both set the same value.')


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the closest of ``known``, or the empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ''


def listing(names: Iterable[str], most: int = 12) -> str:
    """Names joined for a message, cut after ``most``."""
    ordered = sorted(names)
    shown = ', '.join(ordered[:most])
    return f'{shown}, ... ({len(ordered)} in all)' if len(ordered) > most else shown
