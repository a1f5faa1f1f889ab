"""A self-contained HTML page: styles and pictures are inside; it has a light and a dark form, and fits narrow screens."""

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
    """A headline figure: its label, its value with its unit, and a note to compare it with."""

    label: str
    value: str
    unit: str = ''
    note: str = ''


class Page:
    """Sections in the order in which they are added. Text is escaped; ``html`` arguments are not."""

    def __init__(self, title: str, lead: str) -> None:
        self.title, self.lead = title, lead
        self.parts: list[str] = []
        self.links: list[tuple[str, str]] = []

    def cards(self, cards: Sequence[Card]) -> None:
        self.parts.append(
            '<div class="cards">'
            + ''.join(
                f'<div class="card"><div class="label">{escape(card.label)}</div><div class="value">{escape(card.value)}'
                f'<small>{escape(card.unit)}</small></div><div class="note">{escape(card.note)}</div></div>'
                for card in cards
            )
            + '</div>'
        )

    def section(self, name: str, title: str, text: str, html: Sequence[str]) -> None:
        """``name`` is the section's anchor on the page."""
        self.links.append((name, title))
        words = f'<p>{escape(text)}</p>' if text else ''
        self.parts.append(f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{words}{"".join(html)}</section>')

    def render(self) -> str:
        style = resources.files('vq.io.pages').joinpath('page.css').read_text()
        links = ''.join(f'<a href="#{escape(name)}">{escape(title)}</a>' for name, title in self.links)
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(self.title)}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
            f'<style>\n{style}</style>\n</head>\n<body>\n<header><h1>{escape(self.title)}</h1>'
            f'<p class="lead">{escape(self.lead)}</p><nav>{links}</nav></header>\n<main>\n'
            + '\n'.join(self.parts)
            + '\n</main>\n</body>\n</html>\n'
        )

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, self.render())


def row(html: Sequence[str]) -> str:
    """Charts side by side, if there is room."""
    return '<div class="charts">' + ''.join(html) + '</div>'


def table(groups: Sequence[str], head: Sequence[str], rows: Sequence[Sequence[str]], name: str = '') -> str:
    """A table. The first cell of a row is its name; then each of ``groups`` has the columns of ``head``. ``name``: the head of
    the first column."""
    above = ''.join(f'<th scope="colgroup" colspan="{len(head)}">{escape(group)}</th>' for group in groups)
    names = ''.join(f'<th scope="col">{escape(name)}</th>' for _ in groups for name in head)
    corner = f'<th scope="col">{escape(name)}</th>' if name else '<td></td>'
    lines = ''
    for first, *cells in rows:
        lines += f'<tr><th scope="row">{escape(first)}</th>' + ''.join(f'<td>{escape(cell)}</td>' for cell in cells) + '</tr>'
    return (
        f'<div class="scroll"><table><thead><tr><td></td>{above}</tr><tr>{corner}{names}</tr></thead>'
        f'<tbody>{lines}</tbody></table></div>'
    )


def folded(summary: str, text: str) -> str:
    """Preformatted text that opens on demand."""
    return f'<details><summary>{escape(summary)}</summary><pre><code>{escape(text)}</code></pre></details>'


def shell(commands: Sequence[tuple[str, str]]) -> str:
    """Commands as typed, each after its comment, if it has one."""
    notes = (f'<span class="comment"># {escape(comment)}</span>\n' if comment else '' for _, comment in commands)
    lines = '\n'.join(note + escape(line) for note, (line, _) in zip(notes, commands, strict=True))
    return f'<pre class="wrap"><code>{lines}</code></pre>'


def picture(pixels: NDArray[np.uint8], words: str, kind: str = '') -> str:
    """(H, W, 3) uint8 as an ``<img>`` with an inline PNG. ``words`` is its alternative text."""
    stream = io.BytesIO()
    grey = bool((pixels[..., :1] == pixels).all())
    Image.fromarray(pixels[..., 0] if grey else pixels).save(stream, 'PNG', optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    height, width = pixels.shape[:2]
    return (
        f'<img class="{escape(kind)}" alt="{escape(words)}" title="{escape(words)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )


def stacks(rows: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Columns of pictures (caption, one ``<img>`` per row). ``rows``: names, repeated at the start of each line.

    The names precede every fifth column. The style sheet puts 5, 10 or 15 columns on a line and hides the names that do
    not start one.
    """
    words = ''.join(f'<span>{escape(name)}</span>' for name in rows)
    parts = []
    for index, (caption, images) in enumerate(columns):
        if index % 5 == 0:
            hidden = ''.join(f' not{width}' for width in (10, 15) if index % width)
            parts.append(f'<figure class="stack names{hidden}"><figcaption></figcaption>{words}</figure>')
        parts.append(f'<figure class="stack"><figcaption>{escape(caption)}</figcaption>{"".join(images)}</figure>')
    return f'<div class="stacks">{"".join(parts)}</div>'
