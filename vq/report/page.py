"""A page of HTML that needs nothing but itself: styles and pictures inside, light and dark, wide and narrow."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vq.io import atomic


@dataclasses.dataclass
class Card:
    """A headline figure: what it is, its value with its unit, and what to compare it with."""

    label: str
    value: str
    unit: str = ''
    note: str = ''


class Page:
    """Sections in the order they are added. Text given to it is escaped; ``html`` arguments stand as they are."""

    def __init__(self, title: str, lead: str) -> None:
        self.title, self.lead = title, lead
        self.parts: list[str] = []
        self.links: list[tuple[str, str]] = []

    def cards(self, cards: Sequence[Card]) -> None:
        self.parts.append('<div class="cards">' + ''.join(
            f'<div class="card"><div class="label">{escape(card.label)}</div><div class="value">{escape(card.value)}'
            f'<small>{escape(card.unit)}</small></div><div class="note">{escape(card.note)}</div></div>'
            for card in cards) + '</div>')

    def section(self, name: str, title: str, text: str, html: Sequence[str]) -> None:
        """``name`` is the section's address on the page."""
        self.links.append((name, title))
        words = f'<p>{escape(text)}</p>' if text else ''
        self.parts.append(f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{words}{"".join(html)}</section>')

    def render(self) -> str:
        style = resources.files('vq.report').joinpath('page.css').read_text()
        links = ''.join(f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title in self.links)
        return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(self.title)}</title>\n'
                '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
                '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
                f'<style>\n{style}</style>\n</head>\n<body>\n<header><h1>{escape(self.title)}</h1>'
                f'<p class="lead">{escape(self.lead)}</p><nav>{links}</nav></header>\n<main>\n'
                + '\n'.join(self.parts) + '\n</main>\n</body>\n</html>\n')

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, self.render())


def row(html: Sequence[str]) -> str:
    """Charts side by side where there is room."""
    return '<div class="charts">' + ''.join(html) + '</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column names the row; the others are figures."""
    top = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ''.join('<tr>' + f'<th scope="row">{escape(cells[0])}</th>' + ''.join(f'<td>{escape(cell)}</td>' for cell in cells[1:])
                   + '</tr>' for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def code(text: str, summary: str = '') -> str:
    """Preformatted text, folded below ``summary`` if there is one."""
    block = f'<pre><code>{escape(text)}</code></pre>'
    return f'<details><summary>{escape(summary)}</summary>{block}</details>' if summary else block


def picture(pixels: NDArray[np.uint8], words: str, kind: str = '') -> str:
    """(H, W, 3) uint8 as an ``<img>`` that carries its PNG; ``words`` describe it to those who do not see it."""
    stream = io.BytesIO()
    grey = bool((pixels[..., :1] == pixels).all())
    Image.fromarray(pixels[..., 0] if grey else pixels).save(stream, 'PNG', optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    height, width = pixels.shape[:2]
    return (f'<img class="{escape(kind)}" alt="{escape(words)}" title="{escape(words)}" width="{width}" height="{height}" '
            f'src="data:image/png;base64,{data}">')


def stacks(rows: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Columns of pictures (caption, one ``<img>`` per row), as many beside each other as fit; ``rows`` name the pictures."""
    names = '<figure class="stack names"><figcaption></figcaption>' + ''.join(
        f'<span>{escape(name)}</span>' for name in rows) + '</figure>'
    shown = ''.join(f'<figure class="stack"><figcaption>{escape(caption)}</figcaption>{"".join(images)}</figure>'
                    for caption, images in columns)
    return f'<div class="stacks">{names}{shown}</div>'
