"""Parse pages and charts, independent of the code that wrote them."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
from PIL import Image

VOID = {'meta', 'link', 'img', 'br', 'hr', 'input'}


class Reader(HTMLParser):
    """Checks that tags close in order, and collects addresses, ids, text and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.pictures: dict[str, np.ndarray] = {}  # alt -> (H, W, 3)
        self.feed(html)
        self.close()
        assert not self.open, f'not closed: {self.open}'

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.addresses += [found[name] for name in ('src', 'href', 'srcset', 'data', 'xlink:href') if found.get(name)]
        self.ids += [found['id']] if 'id' in found else []
        if tag == 'img':
            data = base64.b64decode(found['src'].removeprefix('data:image/png;base64,'), validate=True)
            self.pictures[found['alt']] = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f'</{tag}> closes nothing'

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return ' '.join(' '.join(self.texts).split())


def needs_nothing_else(html: str) -> bool:
    """Check that no attribute and no style has an external address."""
    reader = Reader(html)
    inside = [f'#{name}' for name in reader.ids]
    return (
        all(address.startswith('data:') or address in inside for address in reader.addresses)
        and 'script' not in reader.tags
        and not re.search(r'url\(|@import|https?://', html)
    )


def drawing(figure: str) -> ElementTree.Element:
    """The SVG of a chart; charts are XML."""
    found = ElementTree.fromstring(figure).find('svg')
    assert found is not None
    return found


def axis(svg: ElementTree.Element, which: str, log: bool = False):
    """A function from pixels to values, from positions and texts of the labels of the axis."""
    anchor, place, shift = ('end', 'y', -4.0) if which == 'y' else ('middle', 'x', 0.0)
    ticks = [
        (float(text.attrib[place]) + shift, float((text.text or '').replace('\u2009', '')))
        for text in svg.iter('text')
        if text.attrib['class'] == 'tick' and text.attrib['text-anchor'] == anchor
    ]
    assert len(ticks) >= 2, 'an axis needs two labels to be read'
    pixels, values = np.array(ticks).T
    slope, offset = np.polyfit(pixels, np.log(values) if log else values, 1)
    return (lambda at: np.exp(slope * at + offset)) if log else (lambda at: slope * at + offset)


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'[ML](-?[\d.]+) (-?[\d.]+)', path)]
