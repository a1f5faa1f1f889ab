"""The report of a generator has the figures and pictures of the facts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.support import Reader, needs_nothing_else
from vq.demo.facts import seconds_of
from vq.demo.generator import sentence
from vq.io.pages.page import Page
from vq.report.facts import Completions, Drawn, GeneratorFacts, Neighbours
from vq.report.generator import WRONG, add_sections, class_sheet, given, headline

SIZE = 8


def results(agreement: float, within: float) -> dict[str, float]:
    return {'agreement': agreement, 'within': within, 'fd_train': 3.21, 'fd_held_out': 4.56, 'share_mean': 0.2,
            'share_most': 0.4375, 'distinct': 5, 'samples': 6}  # fmt: skip


@pytest.fixture
def facts() -> GeneratorFacts:
    rng = np.random.default_rng(0)

    def pixels(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, (*shape, SIZE, SIZE, 3), dtype=np.uint8)

    asked = np.array([0, 1, 2, 0, 1, 2])
    drawn = {
        'guided': Drawn(pixels(6), asked, np.array([0, 1, 2, 0, 7, 2]), results(5 / 6, 0.871)),
        'unguided': Drawn(pixels(6), asked, asked, results(0.789, 0.953)),
    }
    real = {key: value for key, value in results(0.994, 1.002).items() if key != 'fd_held_out'} | {'fd_train': 0.77}
    keep = np.array([[True, True], [False, False]])
    return GeneratorFacts(
        journal=[{'step': 20, 'kind': 'train', 'cross_entropy': 5.1}, {'step': 40, 'kind': 'train', 'cross_entropy': 4.2},
                 {'step': 40, 'kind': 'eval', 'loss/cross_entropy': 4.7}],
        drawn=drawn,
        real=real,
        how='Drawn with care.',
        neighbours=Neighbours(['0', '2'], pixels(2), pixels(2, 3), [['t/1', 't/2', 't/3'], ['t/4', 't/5', 't/6']],
                              np.array([[0.25, 0.1875, 0.125], [0.4375, 0.375, 0.0]])),
        completions=Completions(['0', '1'], ['v/0', 'v/1'], pixels(2), keep, pixels(2, 2), 1440, 180, 0.9333),
        parameters=800_000,
        seconds=61.7,
        noun='digits',
    )  # fmt: skip


@pytest.fixture
def reader(facts) -> Reader:
    page = Page('title', 'lead')
    page.cards(headline(facts))
    add_sections(facts, page)
    assert needs_nothing_else(page.render())
    return Reader(page.render())


def test_the_page_says_the_figures(reader):
    for text in ('83.3 %', 'without guidance 78.9%', '0.87', '0.953', '44 %', 'training digit; mean 20%', '3.21', '4.56',
                 'held-out digits 0.77', '62 s', '40 steps, 800 k', 'checked: all 1,440', '93.3% of 180 such digits',
                 'Drawn with care.', '99.4%', '1.002', '2: 44%', '0: 25%'):  # fmt: skip
        assert text in reader.text, text
    assert reader.ids == ['drawn', 'generated', 'nearest', 'completions']
    assert reader.tags.count('svg') == 1


def test_a_run_without_evaluation_has_a_chart_of_its_training(facts):
    facts.journal = facts.journal[:2]
    page = Page('', '')
    add_sections(facts, page)
    assert 'held out' not in page.render().split('<svg')[0].rsplit('legend', 1)[1]


def test_a_denoiser_has_its_own_words_curve_and_history(facts):
    rng = np.random.default_rng(1)
    facts.tokens, facts.loss = False, ('denoising', 'mean squared error')
    facts.journal = [{'step': step, 'kind': 'train', 'denoising': 1 / step} for step in (20, 40)]
    facts.history = rng.integers(0, 256, (4, 3, SIZE, SIZE, 3), dtype=np.uint8)
    page = Page('', '')
    add_sections(facts, page)
    found = Reader(page.render())
    assert found.ids == ['drawn', 'history', 'generated', 'nearest', 'completions']
    assert 'distinct digits' in found.text and 'token grids' not in found.text
    assert "The generator's loss, mean squared error" in found.text and 'nats' not in found.text
    np.testing.assert_array_equal(found.pictures['2: state 3 of 4'], facts.history[2, 2])


def test_pictures_are_those_of_the_facts(facts, reader):
    near, half = facts.neighbours, facts.completions
    np.testing.assert_array_equal(reader.pictures['new digit 1: 2'], near.images[1])
    name = 'training digit t/5, shares 38% of the tokens with new digit 1'
    np.testing.assert_array_equal(reader.pictures[name], near.training[1, 1])
    np.testing.assert_array_equal(reader.pictures['1, v/1: completion 2'], half.made[1, 1])
    shown = reader.pictures['1, v/1: the given half']
    np.testing.assert_array_equal(shown[: SIZE // 2], half.images[1, : SIZE // 2])
    assert (shown[SIZE // 2 :] == 128).all()


def test_a_sheet_has_a_row_per_class_and_frames_what_is_wrong(facts):
    drawn = facts.drawn['guided']
    sheet = class_sheet(drawn, each=2, frame=1)
    cell = SIZE + 2
    assert sheet.shape == (3 * cell, 2 * cell, 3)
    for line, place, index in ((0, 0, 0), (0, 1, 3), (1, 0, 1), (1, 1, 4), (2, 1, 5)):
        found = sheet[line * cell : (line + 1) * cell, place * cell : (place + 1) * cell]
        np.testing.assert_array_equal(found[1:-1, 1:-1], drawn.images[index])
        assert (tuple(found[0, 0]) == WRONG) == (index == 4), 'asked for 1, the classifier says 7'


def test_grey_covers_the_cells_that_are_not_kept():
    image = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    shown = given(image, np.array([[True, False], [False, True], [True, True]]))
    np.testing.assert_array_equal(shown[:2, :2], image[:2, :2])
    np.testing.assert_array_equal(shown[2:4, 2:], image[2:4, 2:])
    np.testing.assert_array_equal(shown[4:], image[4:])
    assert (shown[:2, 2:] == 128).all() and (shown[2:4, :2] == 128).all()
    assert image[0, 3, 2] == 11, 'the image itself stays as it is'


def test_the_sentence_says_the_worse_of_the_shares(facts):
    facts.drawn['unguided'].results['share_most'] = 0.625
    said = sentence(facts)
    assert '83.3 % to the requested class (78.9 % without guidance)' in said
    assert 'at most 62 %' in said and 'all 1440 given tokens kept' in said


def test_seconds_are_those_of_the_training_command():
    commands = [('python -m vq.train demo a.py', 9.0), ('python -m vq.sample demo_ar b.py', 3.0),
                ('python -m vq.train demo_ar b.py', 7.5)]  # fmt: skip
    assert seconds_of(commands, 'demo_ar') == 7.5 and seconds_of(commands, 'demo') == 9.0
