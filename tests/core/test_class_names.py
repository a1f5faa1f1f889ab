"""Classes by name and by number."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from vq.core.class_names import class_numbers
from vq.core.errors import UserError

NAMES = ('boat', 'cat', 'rocket', 'Übersicht')


def test_names_and_numbers_can_be_mixed() -> None:
    assert class_numbers(['rocket', '3', 'boat', 1, np.int64(2)], NAMES, 4, 'gen') == [2, 3, 0, 1, 2]


def test_a_name_that_is_a_number_wins() -> None:
    """Folders 1, 3 and 5: the word 3 is the folder 3, which is class 1; the number 0 has no folder and is a number."""
    assert class_numbers(['3', '0', 2], ('1', '3', '5'), 3, 'gen') == [1, 0, 2]


def test_case_and_unicode_form_do_not_matter_where_one_class_fits() -> None:
    decomposed = unicodedata.normalize('NFD', 'übersicht')
    assert class_numbers(['ROCKET', decomposed], NAMES, 4, 'gen') == [2, 3]
    assert class_numbers(['a', 'A'], ('A', 'a'), 2, 'gen') == [1, 0]
    with pytest.raises(UserError, match="no class 'aa'"):
        class_numbers(['aa'], ('AA', 'Aa'), 2, 'gen')


@pytest.mark.parametrize(
    ('asked', 'names', 'count', 'message', 'hint'),
    [
        (['rokcet'], NAMES, 4, "gen has no class 'rokcet'; did you mean 'rocket'?", 'Its classes: boat, cat, rocket'),
        (['4'], NAMES, 4, 'gen has no class 4: it has 4', 'numbers from 0 to 3'),
        ([-1], NAMES, 4, 'gen has no class -1: it has 4', 'numbers from 0 to 3'),
        (['rocket'], (), 10, "gen has no class 'rocket': its classes have no names", 'Give numbers from 0 to 9.'),
        (['rocket'], (), None, "gen has no class 'rocket'", 'Give numbers.'),
        (['²'], (), 10, "gen has no class '²'", 'Give numbers'),
        (['rocket'], (), 0, 'gen has no classes', 'Leave classes out.'),
        ([0], (), 0, 'gen has no classes', 'Leave classes out.'),
    ],
)
def test_an_unknown_class_is_refused(asked, names, count, message, hint) -> None:
    with pytest.raises(UserError) as error:
        class_numbers(asked, names, count, 'gen')
    assert message in error.value.message and hint in error.value.hint


def test_many_classes_are_cut() -> None:
    with pytest.raises(UserError) as error:
        class_numbers(['zebra'], [f'class{number}' for number in range(1000)], 1000, 'gen')
    assert '(1000 in all)' in error.value.hint and len(error.value.hint) < 400
