"""Values of charts are read back by their axes; ticks are round and within range."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.support import axis, drawing, points
from vq.io.pages.charts import Series, level_bars, line_chart, sorted_bars
from vq.io.pages.scales import linear_ticks, log_ticks, round_step, show, spread

values = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(values, min_size=1, max_size=6), st.booleans())
def test_ticks_are_round_and_inside(found, zero):
    low, high = spread(found, log=False, zero=zero)
    assert low <= min(found) and max(found) <= high and low < high
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    step = Decimal(str(round_step((high - low) / 5)))
    assert step.normalize().as_tuple().digits in {(1,), (2,), (5,)}
    for tick in ticks:
        assert low - 1e-6 * abs(low) <= tick <= high + 1e-6 * abs(high)
        assert abs(Decimal(str(tick)) / step - round(Decimal(str(tick)) / step)) < Decimal('1e-6')


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.floats(1e-6, 1e4), st.floats(1.5, 1e6))
def test_log_ticks_are_inside_and_few(low, factor):
    ticks = log_ticks(low, low * factor)
    assert ticks == sorted(set(ticks))
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)
    assert len(ticks) <= 10
    assert len(ticks) >= 1 or factor < 2.1


@pytest.mark.parametrize(
    ('value', 'text'),
    [(0, '0'), (25, '25'), (0.1 + 0.2, '0.3'), (0.002, '0.002'), (1234.5678, '1235'), (22992, '22\u2009992'),
     (3.2e-5, '3.2e-5'), (-7.25, '-7.25'), (math.inf, 'inf'), (1000, '1000'), (100000, '100\u2009000')],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert show(value) == text


@pytest.mark.parametrize('log', [False, True])
def test_a_reader_of_the_axes_finds_the_values(log):
    x = [20, 40, 130, 700]
    y = [0.83, 0.11, 0.0123, 0.0041]
    svg = drawing(line_chart('loss', [Series('l2', x, y), Series('other', x, [0.5] * 4)], 'step', log=log))
    lines = [path for path in svg.iter('path') if path.attrib['class'].startswith('line')]
    assert len(lines) == 2
    drawn = np.array(points(lines[0].attrib['d']))
    np.testing.assert_allclose(axis(svg, 'x')(drawn[:, 0]), x, atol=1.0)
    np.testing.assert_allclose(axis(svg, 'y', log)(drawn[:, 1]), y, rtol=0.02 if log else 0, atol=0 if log else 0.003)


def test_reference_lines_stand_at_their_value():
    svg = drawing(line_chart('psnr', [Series('ours', [0, 1], [20.0, 31.0])], 'step', references=[('k-means', 25.0)]))
    reference = next(line for line in svg.iter('line') if line.attrib['class'].startswith('reference'))
    assert reference.attrib['y1'] == reference.attrib['y2']
    assert axis(svg, 'y')(float(reference.attrib['y1'])) == pytest.approx(25, abs=0.05)


def test_values_that_are_not_finite_leave_a_gap():
    gaps = Series('l2', range(6), [1.0, 2.0, math.nan, 3.0, math.inf, 4.0])
    line = next(path for path in drawing(line_chart('x', [gaps], 'step')).iter('path'))
    assert line.attrib['d'].count('M') == 3 and len(points(line.attrib['d'])) == 4
    negative = Series('l2', range(3), [1.0, -1.0, 2.0])
    line = next(path for path in drawing(line_chart('x', [negative], 'step', log=True)).iter('path'))
    assert len(points(line.attrib['d'])) == 2, 'a log axis has no place for -1'


@pytest.mark.parametrize('y', [[], [math.nan], [3.0], [0.0, 0.0], [5.0, 5.0, 5.0]])
@pytest.mark.parametrize('log', [False, True])
def test_charts_of_little_can_be_drawn(y, log):
    drawing(line_chart('x', [Series('a', range(len(y)), y)], 'step', log=log))


def test_names_are_text_not_markup():
    figure = line_chart('<b>&', [Series('a < b', [0, 1], [0, 1])], '"step"', '<y>', references=[('<i>', 0.5)], note='1 < 2')
    assert '<b>' not in figure and '<i>' not in figure
    drawing(figure)


def test_series_must_match():
    with pytest.raises(ValueError, match='2 x values and 3 y values'):
        Series('a', [0, 1], [0, 1, 2])


def test_sorted_bars_have_the_heights_of_the_counts():
    counts = [7, 0, 120, 3, 0, 3, 41]
    svg = drawing(sorted_bars('usage', counts, 'codes', 'uses'))
    read = axis(svg, 'y', log=True)
    alive = [rect for rect in svg.iter('rect') if rect.attrib['class'] == 'hit']
    np.testing.assert_allclose([read(float(rect.attrib['y'])) for rect in alive], [120, 41, 7, 3, 3], rtol=0.03)
    assert len([rect for rect in svg.iter('rect') if 'dead' in rect.attrib['class']]) == 2
    mean = next(line for line in svg.iter('line') if line.attrib['class'].startswith('reference'))
    assert read(float(mean.attrib['y1'])) == pytest.approx(174 / 7, rel=0.03)


@pytest.mark.parametrize('counts', [[0, 0, 0], [1], [5] * 300])
def test_sorted_bars_of_extremes(counts):
    drawing(sorted_bars('usage', counts, 'codes', 'uses'))


def test_level_bars_are_in_proportion():
    rects = list(drawing(level_bars('psnr', [('ours', 30.0, 's0'), ('theirs', 20.0, 's1')], 'dB')).iter('rect'))
    wide, narrow = (float(rect.attrib['width']) for rect in rects)
    assert wide / narrow == pytest.approx(1.5, rel=0.01)
