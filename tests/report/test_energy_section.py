"""The section on energies: its figures, curves and pictures; letters; agreement with pairs."""

from __future__ import annotations

import numpy as np
import torch

from tests.report.support import Reader, needs_nothing_else
from vq.interfaces import Features
from vq.io.pages.page import Page
from vq.report.energy import add_section, in_rows
from vq.report.facts import Composition, EnergyFacts
from vq.report.letters import letters
from vq.report.of_energy import agreement_of_pairs


def facts() -> EnergyFacts:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    made = Composition(images, [('3', '8'), ('<b>', '9')] * 6, 0.75, 0.25, (0.2, 1 / 45))
    curve = np.array([[3.0, 2.0, 1.0], [4.0, 3.0, 2.0], [5.0, 4.0, 3.0]])
    known, other = rng.normal(size=30), rng.normal(size=30) + 3
    return EnergyFacts(curve, 0.96, 50, (2.04, 1.98), made, (known, other), 0.987, images)


def test_the_section_says_the_figures() -> None:
    page = Page('title', 'lead')
    add_section(facts(), page, 'digits')
    html = page.render()
    assert needs_nothing_else(html)
    reader = Reader(html)
    for text in (
        'of 50',
        '96.0%',
        '2.04',
        '1.98',
        '0.987',
        '75.0% (chance 20.0%)',
        '25.0% (chance 2.2%)',
        '3 and 8, <b> and 9',
    ):
        assert text in reader.text, text
    assert reader.ids == ['energies'] and reader.tags.count('svg') == 2 and len(reader.pictures) == 2


def test_what_was_not_measured_is_left_out() -> None:
    found = facts()
    found.composition = found.likelihood = found.auroc = found.letters = None
    page = Page('title', 'lead')
    add_section(found, page)
    reader = Reader(page.render())
    assert 'letters' not in reader.text and 'chance' not in reader.text
    assert reader.tags.count('svg') == 1 and not reader.pictures


def test_images_stand_in_rows() -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8) + 1
    found = in_rows(images, 2)
    np.testing.assert_array_equal(found[..., 0], np.kron([[1, 2], [3, 0]], np.ones((2, 2))))


def test_letters_differ_are_the_same_each_time_and_as_sharp_as_digits() -> None:
    made, again = letters(60, (32, 32)), letters(60, (32, 32))
    np.testing.assert_array_equal(made, again)
    assert made.shape == (60, 32, 32, 3) and made.dtype == np.uint8
    assert len({picture.tobytes() for picture in made}) == 60, 'the second A is of another size and place'
    assert (made.max((1, 2, 3)) > 128).all() and (made.mean((1, 2, 3)) < 128).all(), 'white on black'
    small = letters(1, (8, 8))[0].astype(int)
    cells = made[0].reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(cells - small).mean() < 25, 'they are enlarged from 8 x 8'


class Brightness:
    """Its likeliest class is the value of the first pixel, the next one that of the second."""

    def __call__(self, images: torch.Tensor) -> Features:
        first, second = images[:, 0, 0, 0].long(), images[:, 0, 0, 1].long()
        logits = torch.zeros(len(images), 10).scatter(1, second[:, None], 1.0).scatter(1, first[:, None], 2.0)
        return Features(torch.zeros(len(images), 1), logits)


def test_agreement_with_pairs_counts_one_of_them_and_both() -> None:
    images = torch.zeros(4, 3, 1, 2, dtype=torch.uint8)
    images[:, 0, 0] = torch.tensor([[3, 8], [8, 3], [3, 5], [1, 8]])
    pairs = torch.tensor([[3, 8]] * 4)
    assert agreement_of_pairs(Brightness(), images, pairs) == (0.75, 0.5)  # type: ignore[arg-type]
