"""Figures in benchmarks/results: of whole runs, with equal sides, and what must hold of them. Times are not tested."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.snippets import ROOT

FILES = sorted((ROOT / 'benchmarks' / 'results').glob('*.json'))


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / 'benchmarks' / 'results' / f'{name}.json').read_text())
    return found


@pytest.mark.parametrize('name', [path.stem for path in FILES])
def test_figures_are_of_a_whole_run_whose_sides_are_equal(name: str) -> None:
    found = read(name)
    assert found['benchmark'] == name and found['equal'] and not found['quick'] and not found['once']
    assert found['machine']['versions']['torch'] and found['machine']['cpu']


def test_digits_lie_in_the_boxes_that_ask_for_them() -> None:
    """A classifier assigns crops to the digits asked for; of exchanged digits, and without the layout, it is near chance."""
    found = read('layout_digits')
    goals = found['goals']
    assert goals['agreement'] >= 0.8 and goals['chance'] <= 0.3 and goals['dropped'] <= 0.3
    for row in found['seeds'].values():
        assert row['boxes'] >= 300
        assert row['agreement'] >= goals['agreement'] and row['real'] >= 0.95
        assert row['chance'] <= goals['chance'] and row['dropped'] <= goals['dropped']
        assert row['segmenter']['pixel_accuracy'] >= goals['pixel accuracy'] >= 0.95
