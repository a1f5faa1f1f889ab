"""A page is self-contained, and text is escaped."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.support import Reader, needs_nothing_else
from vq.io.pages.page import Card, Page, folded, picture, shell, stacks, table


def test_page_is_whole_and_alone(tmp_path):
    page = Page('digits & more', 'lead <b>')
    page.cards([Card('PSNR', '30.1', 'dB', 'better than < 25')])
    figure = picture(np.zeros((8, 8, 3), np.uint8), 'a black square')
    page.section('one', 'First', 'text with </section>', [figure, table(['test'], ['a', 'b'], [['row', '1', '2']])])
    page.section('two', 'Second', '', [shell([('ls <x>', 'a comment')]), folded('more', 'a = 1 < 2')])
    page.save(tmp_path / 'made' / 'report.html')
    html = (tmp_path / 'made' / 'report.html').read_text()
    reader = Reader(html)
    assert reader.ids == ['one', 'two'] and {'#one', '#two'} <= set(reader.addresses)
    for text in ('digits & more', 'lead <b>', 'better than < 25', 'text with </section>', 'ls <x>', 'a = 1 < 2'):
        assert text in reader.text
    assert needs_nothing_else(html)
    assert 'prefers-color-scheme: dark' in html and 'width=device-width' in html


@pytest.mark.parametrize('addition', ['<img alt="" src="https://x.y/z.png">', '<script>1</script>', '<a href="b.html">b</a>'])
def test_the_check_sees_what_a_page_may_not_have(addition):
    html = Page('x', '').render()
    assert needs_nothing_else(html)
    addition = addition.replace('<img alt="" src="https://x.y/z.png">', '<link href="https://x.y/z.css">')
    assert not needs_nothing_else(html.replace('</main>', addition + '</main>'))


@pytest.mark.parametrize('grey', [False, True])
def test_pictures_keep_their_pixels(grey):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels
    np.testing.assert_array_equal(Reader(picture(pixels, 'words "here"')).pictures['words "here"'], pixels)


def test_names_of_rows_stand_at_the_start_of_every_line():
    """For 5, 10 and 15 columns: a name figure is shown before each line's first column and nowhere else."""
    html = stacks(['input'], [(str(index), ['<br>']) for index in range(30)])
    names = [part.split('"')[0].split() for part in html.split('<figure class="')[1:]]
    for width in (5, 10, 15):
        shown, column = [], 0
        for classes in names:
            if 'names' in classes:
                if width == 5 or f'not{width}' not in classes:
                    shown.append(column)
            else:
                column += 1
        assert shown == list(range(0, 30, width))
