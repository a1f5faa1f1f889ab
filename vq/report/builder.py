"""One page from the facts of a run: the report of ``vq report NAME``, and that of the demo."""

from __future__ import annotations

from html import escape

from vq.io.pages.page import Page, folded, shell, table
from vq.report import classifier, energy, generator, tokenizer, training
from vq.report.facts import Facts, Origin


def build_page(facts: Facts, title: str, lead: str) -> Page:
    origin = facts.origin
    said = 'Dry run: a tiny model after a few steps. All figures below are meaningless. ' if origin.tiny else ''
    page = Page(title, f'{said}{origin.state}{lead}')
    cards = []
    if facts.tokenizer is not None:
        cards += tokenizer.headline(facts.tokenizer, origin)
    if facts.generator is not None:
        cards += generator.headline(facts.generator)
    if facts.classifier is not None:
        cards += classifier.headline(facts.classifier, origin)
    if cards:
        page.cards(cards)
    if origin.left_out:
        left_out(origin, page)
    if facts.tokenizer is not None:
        tokenizer.add_sections(facts.tokenizer, origin, page)
    if facts.generator is not None:
        generator.add_sections(facts.generator, page)
        if facts.generator.energy is not None:
            energy.add_section(facts.generator.energy, page, facts.generator.noun)
    if facts.classifier is not None:
        classifier.add_sections(facts.classifier, page)
    if facts.tokenizer is None:
        training.add_section(origin, page, [])
    if origin.results:
        measured(origin, page)
    if origin.cost:
        cost(origin, page)
    details(origin, page)
    return page


def left_out(origin: Origin, page: Page) -> None:
    """What the page lacks, with the reasons: before everything else, so that nobody looks for it."""
    lines = ''.join(f'<li>{escape(reason)}</li>' for reason in origin.left_out)
    page.section('left_out', 'Left out', '', [f'<ul>{lines}</ul>'])


def measured(origin: Origin, page: Page) -> None:
    """Results files of the run, side by side."""
    places = [place for place, _ in origin.results]
    names = list(dict.fromkeys(name for _, found in origin.results for name, value in found.items() if value is not None))
    rows = [[name, *(training.figure(found.get(name)) for _, found in origin.results)] for name in names]
    page.section(
        'results',
        'Results of commands',
        'The figures that vq val, vq test and other commands wrote into the folder of the run.',
        [table([''], places, rows)],
    )


def cost(origin: Origin, page: Page) -> None:
    page.section('cost', 'Cost', '', [table([''], [''], [[name, value] for name, value in origin.cost])])


def details(origin: Origin, page: Page) -> None:
    commands = [(command, '' if seconds is None else f'{seconds:.1f} s') for command, seconds in origin.commands]
    machine = '; '.join(f'{name}: {value}' for name, value in origin.machine)
    words = f'{origin.commands_are} {machine}.'.strip() if machine else origin.commands_are
    parts = [shell(commands)] if commands else []
    parts.append(folded('The composed config', origin.config))
    if origin.git:
        parts.append(folded('The state of the code', origin.git))
    page.section('commands', 'Reproduce it', words, parts)
