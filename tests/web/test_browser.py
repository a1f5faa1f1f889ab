"""The page in a real browser: Debian's Chromium, driven by Playwright.

Pictures of it go to ``web_pictures``, in the base folder of pytest's temporary files.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runners.support import commands_here
from tests.sources import ROOT
from tests.web.support import png
from vq.cli.sample import main as sample

FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking']
FLAGS += ['--disable-component-update', '--disable-sync']
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
WIDTHS = (390, 1280)
LONG = 60_000  # milliseconds; the first job imports torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason='the page is not tried in a browser: no Chromium here (apt-get install chromium)'
    ),
    pytest.mark.skipif(importlib.util.find_spec('playwright') is None, reason='no playwright: pip install -e .[dev]'),
]


@pytest.fixture(scope='module')
def address(page_runs: Path) -> Iterator[str]:
    """``vq web`` as a user starts it."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    environment.pop('DRY_RUN', None)
    process = subprocess.Popen(
        [sys.executable, '-m', 'vq.web', '--device', 'cpu'], cwd=page_runs, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    yield first.rpartition(' ')[2].strip()
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)  # its profile is new
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, on a screen of 1280 pixels. Whatever it says on the console, or asks of other places, is an error."""
    context = browser.new_context(viewport={'width': 1280, 'height': 900})
    found = context.new_page()
    wrong: list[str] = []
    found.on('pageerror', lambda error: wrong.append(str(error)))
    found.on('console', lambda message: wrong.append(message.text) if message.type == 'error' else None)
    found.on('request', lambda request: wrong.append(request.url) if not own(request.url, address) else None)
    found.set_default_timeout(LONG)
    found.goto(address)
    yield found
    context.close()
    assert not [words for words in wrong if 'status of 4' not in words], wrong  # refusals are noted by the browser


def own(url: str, address: str) -> bool:
    return url.startswith((address, 'data:', 'blob:'))


def drag(page: Any, *corners: tuple[float, float]) -> None:
    """From the first to the last of these places of the canvas, in shares of its sides."""
    canvas = page.locator('.canvas')
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    places = [(box['x'] + x * box['width'], box['y'] + y * box['height']) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def saved(page: Any) -> list[dict[str, Any]]:
    """The file that the page saves."""
    with page.expect_download() as download:
        page.get_by_role('button', name='Save JSON').click()
    found: list[dict[str, Any]] = json.loads(Path(download.value.path()).read_text())
    return found


def drawn(page: Any) -> list[str]:
    """Draw, and the images of the new row."""
    before = page.locator('#layout .row').count()
    page.get_by_role('button', name='Draw', exact=True).click()
    page.locator(f'#layout .row:nth-of-type({before + 1})').wait_for()
    images = page.locator('#layout .row').first.locator('.strip img')
    return [image.get_attribute('src') for image in images.all()]


def two_boxes(page: Any) -> None:
    """Draw them: a 3 on the left, a 7 on the right."""
    page.locator('.canvas').wait_for()
    page.get_by_role('button', name='Clear').click()
    page.get_by_role('radio', name='class 3').click()
    drag(page, (0.125, 0.25), (0.4375, 0.75))
    drag(page, (0.5625, 0.25), (0.875, 0.75))
    page.keyboard.press('7')


def test_two_boxes_are_drawn_and_the_image_changes_with_the_layout(page: Any, page_runs: Path, tmp_path: Path) -> None:
    two_boxes(page)
    assert saved(page) == [{'boxes': [[4, 8, 14, 24], [18, 8, 28, 24]], 'categories': ['3', '7']}]
    page.locator('#layout').get_by_label('Images').fill('2')
    page.locator('#layout').get_by_label('Seed').fill('11')
    page.locator('#layout').get_by_label('keep it').check()
    page.locator('#layout').get_by_label('Steps').fill('4')
    first, again = drawn(page), drawn(page)
    assert first == again and len(first) == 2 and first[0] != first[1], 'the seed is kept'
    drag(page, (0.72, 0.5), (0.72, 0.7))  # the right box, downwards
    assert saved(page)[0]['boxes'][1] == [18, 14, 28, 30]
    moved = drawn(page)
    assert not set(moved) & set(first)
    page.get_by_role('button', name='Undo').click()
    assert drawn(page) == first
    row = page.locator('#layout .row').first
    assert row.locator('.outlines.asked rect').count() == 4 and row.locator('.outlines.found').count() == 2
    row.get_by_label('boxes detected').uncheck()
    assert row.locator('.outlines.found').first.is_hidden() and row.locator('.outlines.asked').first.is_visible()
    # the very file that vq sample takes
    (tmp_path / 'layout.json').write_text(json.dumps(saved(page)))
    words = ['boxes', '--layout', str(tmp_path / 'layout.json'), '--num-samples', '2', '--seed', '11', '--steps', '4']
    home = tmp_path / 'home'
    shutil.copytree(page_runs, home)
    with commands_here(dry=False), contextlib.chdir(home):
        assert sample(words) == 0
    assert same_pictures(first, sorted((home / 'work_dirs/boxes_sample/samples').iterdir()))


def same_pictures(urls: list[str], files: list[Path]) -> bool:
    ours = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(',')[2])))) for url in urls]
    theirs = [np.asarray(Image.open(file)) for file in files]
    return all(np.abs(a.astype(int) - b.astype(int)).max() <= 1 for a, b in zip(ours, theirs, strict=True))


def test_boxes_by_keyboard_mouse_and_file(page: Any, tmp_path: Path) -> None:
    two_boxes(page)
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowDown')
    page.keyboard.press('Shift+ArrowRight')
    assert saved(page)[0]['boxes'][1] == [19, 9, 30, 25]
    page.locator('.box.chosen').focus()
    page.keyboard.press('d')
    assert len(saved(page)[0]['boxes']) == 3
    page.locator('.box.chosen').focus()
    page.keyboard.press('Delete')
    page.keyboard.press('Control+z')
    page.keyboard.press('Control+Shift+z')
    assert len(saved(page)[0]['boxes']) == 2
    page.locator('.canvas').focus()
    page.keyboard.press('Enter')
    assert len(saved(page)[0]['boxes']) == 3
    drag(page, (4 / 32, 8 / 32), (1 / 32, 2 / 32))  # nothing there but the corner of a box that is not chosen: it moves
    page.get_by_label('width').fill('12')
    page.get_by_label('width').press('Enter')
    box = saved(page)[0]['boxes'][0]
    assert box[2] - box[0] == 12
    (tmp_path / 'mine.json').write_text('{"boxes": [[0, 0, 10, 12]], "categories": [9]}')
    page.locator('#layout-file').set_input_files(tmp_path / 'mine.json')
    page.get_by_text('mine.json: 1 boxes').wait_for()
    assert saved(page) == [{'boxes': [[0, 0, 10, 12]], 'categories': ['9']}]
    for text, said in (
        ('no json', 'cannot be read'),
        ('{"boxes": [[0, 0, 1]], "categories": [1]}', 'is not [x1, y1, x2, y2]'),
    ):
        (tmp_path / 'bad.json').write_text(text)
        page.locator('#layout-file').set_input_files(tmp_path / 'bad.json')
        page.get_by_role('alert').get_by_text(said).wait_for()
    assert saved(page) == [{'boxes': [[0, 0, 10, 12]], 'categories': ['9']}], 'a bad file changes nothing'


def test_a_box_is_drawn_and_moved_by_touch(browser: Any, address: str) -> None:
    """On a phone, with a finger: the page does not scroll instead."""
    context = browser.new_context(viewport={'width': 390, 'height': 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address)
    page.locator('.canvas').wait_for(timeout=LONG)
    page.get_by_role('button', name='Clear').tap()
    page.locator('.canvas').scroll_into_view_if_needed()
    box, finger = page.locator('.canvas').bounding_box(), context.new_cdp_session(page)

    def swipe(*places: tuple[float, float]) -> None:
        for number, (x, y) in enumerate(places):
            point = {'x': box['x'] + x * box['width'], 'y': box['y'] + y * box['height']}
            kind = 'touchMove' if number else 'touchStart'
            finger.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [point]})
        finger.send('Input.dispatchTouchEvent', {'type': 'touchEnd', 'touchPoints': []})

    scrolled = page.evaluate('scrollY')
    swipe((0.25, 0.25), (0.4, 0.5), (0.5, 0.75))
    swipe((0.375, 0.5), (0.4, 0.5), (0.5, 0.5))
    assert page.evaluate('scrollY') == scrolled
    assert saved(page)[0]['boxes'] == [[12, 8, 20, 24]]
    context.close()


def test_tabs_and_focus_by_keyboard(page: Any) -> None:
    page.locator('.canvas').wait_for()
    page.get_by_role('tab', name='Layout').focus()
    for name in ('Reconstruct', 'Generate', 'Runs', 'Layout'):
        page.keyboard.press('ArrowRight')
        assert page.evaluate('document.activeElement.textContent') == name
        assert page.get_by_role('tab', name=name).get_attribute('aria-selected') == 'true'
    page.keyboard.press('Tab')
    outline = page.evaluate('getComputedStyle(document.activeElement).outlineStyle')
    assert outline == 'solid', 'the focus cannot be seen'
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('main button, main input, main select, main textarea')].filter((one) =>
        !one.hidden && !one.closest('[hidden]') && !one.textContent.trim() && !one.getAttribute('aria-label') &&
        !one.labels?.length)
        .map((one) => one.outerHTML)"""
    )
    assert not unnamed, 'controls without a label'


def test_an_uploaded_image_is_reconstructed(page: Any) -> None:
    page.get_by_role('tab', name='Reconstruct').click()
    page.get_by_label('Tokenizer').select_option('tok')
    page.locator('#reconstruct input[type=file]').set_input_files({'name': 'a.png', 'mimeType': 'image/png', 'buffer': png()})
    page.locator('#reconstruct .views img').nth(3).wait_for()
    words = page.locator('#reconstruct .row').inner_text()
    assert 'Reconstruction' in words and 'PSNR' in words and 'bits' in words and 'tokens of' in words
    page.locator('#reconstruct .views img').nth(3).hover()
    page.locator('#reconstruct').get_by_text(', column ').wait_for()
    page.get_by_label('Tokenizer').select_option('kl')
    page.locator('#reconstruct').get_by_role('button', name='Reconstruct', exact=True).click()
    page.get_by_text('a continuous tokenizer has no tokens').wait_for()


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        ('notes.png', b'these are words', 'is not an image'),
        ('huge.png', b'\0' * 10_000_001, 'MB are taken'),
        ('wide.png', 'wide', '4097 x 2 pixels'),
    ],
)
def test_a_bad_or_huge_upload_gets_a_message(page: Any, tmp_path: Path, name: str, content: Any, said: str) -> None:
    (tmp_path / name).write_bytes(png(4097, 2) if content == 'wide' else content)
    page.get_by_role('tab', name='Reconstruct').click()
    page.locator('#reconstruct input[type=file]').set_input_files(tmp_path / name)
    page.get_by_role('alert').get_by_text(said).wait_for()
    assert page.evaluate('fetch("api/state").then((answer) => answer.status)') == 200, 'no harm'


def test_classes_are_generated_and_halves_completed(page: Any) -> None:
    page.get_by_role('tab', name='Generate').click()
    page.get_by_role('button', name='class 4').click()
    page.locator('#generate').get_by_label('Images').fill('3')
    page.get_by_role('button', name='Generate', exact=True).click()
    page.locator('#generate .strip img').nth(2).wait_for()
    assert page.locator('#generate .strip figcaption').all_inner_texts() == ['4'] * 3
    page.locator('#generate input[type=file]').set_input_files({'name': 'a.png', 'mimeType': 'image/png', 'buffer': png()})
    page.locator('#generate .chosen-image img').wait_for()
    page.get_by_role('button', name='Generate', exact=True).click()
    page.get_by_text('given', exact=True).wait_for()
    assert page.locator('#generate .row').first.locator('.strip img').count() == 4


def test_two_runs_are_compared(page: Any) -> None:
    page.get_by_role('tab', name='Runs').click()
    page.get_by_role('button', name='tok', exact=True).click()
    page.locator('.detail .chart').first.wait_for()
    for name in ('tok', 'kl'):
        page.get_by_label(f'compare {name}', exact=True).check()
    page.get_by_role('button', name='Compare', exact=True).click()
    page.get_by_text('The same images through each tokenizer').wait_for()
    assert page.locator('.comparison img').count() > 4
    assert page.evaluate(
        "[...document.querySelectorAll('.comparison img')].every((image) => image.complete && image.naturalWidth)"
    )


def test_many_runs_can_be_filtered(page: Any) -> None:
    def many(route: Any) -> None:
        answer = route.fetch()
        (first, *_) = answer.json()['runs']
        route.fulfill(response=answer, json={'runs': [{**first, 'name': f'{word}_{n}'} for n in range(10) for word in 'ab']})

    page.route('**/api/runs', many)
    page.get_by_role('tab', name='Runs').click()
    page.get_by_role('button', name='a_7').wait_for()
    assert page.locator('.run:visible').count() == 20
    page.get_by_label('Show runs with this in their name').fill('B 3')
    assert page.locator('.run:visible').all_inner_texts()[0].startswith('b_3') and page.locator('.run:visible').count() == 1


def renamed(route: Any) -> None:
    """The state of the server, with another path in place of a run."""
    answer = route.fetch()
    content = answer.json()
    for run in content['runs']:
        run['name'] = '../../etc'
    route.fulfill(response=answer, json=content)


def test_a_wrong_token_and_a_path_outside_of_the_runs(page: Any, address: str) -> None:
    """Each gets a message, and the page goes on."""
    other = page.context.new_page()
    other.goto(address.rstrip('/')[:-3] + 'abc/')
    other.get_by_text('Open the address that vq web printed').wait_for()
    other.close()
    page.route('**/api/state', renamed)
    page.reload()
    page.locator('.canvas').wait_for()
    page.get_by_role('button', name='Draw', exact=True).click()
    page.get_by_role('alert').get_by_text("has the part '..'").wait_for()
    assert page.evaluate('fetch("api/runs").then((answer) => answer.status)') == 200


def test_a_drawing_is_cancelled(page: Any) -> None:
    page.locator('.canvas').wait_for()
    page.locator('#layout').get_by_label('Steps').fill('1000')
    page.locator('#layout').get_by_label('Images').fill('16')
    page.get_by_role('button', name='Draw', exact=True).click()
    page.get_by_text('drawing').wait_for()
    page.get_by_role('button', name='Cancel').click()
    page.get_by_text('Cancelled.').wait_for()
    assert page.get_by_role('button', name='Draw', exact=True).is_enabled()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', WIDTHS)
def test_every_tab_fits_the_screen(browser: Any, address: str, width: int, scheme: Any, tmp_path_factory: Any) -> None:
    """No tab is wider than a phone, and words can be told from their ground in light and dark."""
    pictures = tmp_path_factory.getbasetemp() / 'web_pictures'
    context = browser.new_context(viewport={'width': width, 'height': 844}, color_scheme=scheme, has_touch=width < 500)
    page = context.new_page()
    page.goto(address)
    page.locator('.canvas').wait_for(timeout=LONG)
    for name in ('Layout', 'Reconstruct', 'Generate', 'Runs'):
        page.get_by_role('tab', name=name).click()
        page.locator('main section').locator('visible=true').first.wait_for()
        assert page.evaluate('document.documentElement.scrollWidth') <= width, name
        page.screenshot(path=pictures / f'{name.lower()}_{width}_{scheme}.png', full_page=True)
    colours = page.evaluate('["color", "backgroundColor"].map((name) => getComputedStyle(document.body)[name])')
    assert contrast(*colours) > 7
    context.close()


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG between two colours ``rgb(r, g, b)``."""

    @functools.cache
    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix('rgb(').removesuffix(')').split(',')]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = max(light(one), light(other)), min(light(one), light(other))
    return (high + 0.05) / (low + 0.05)
