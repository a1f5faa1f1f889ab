"""docs/energy.md: it has every flag and default of the energy diffusion code, and what stands beside them can be used."""

from __future__ import annotations

import re

import pytest

from tests.flag_tables import flags, page_of, written
from tests.published import SHARED, find
from tests.test_two_stage_page import CODE, Pairs, Row, together, uses
from vq.assembly.compose import checked, compose

CONFIG, MAR = 'energy/base_energy_imagenet_ddp.py', 'mar/base_imagenet_ddp.py'
# beginnings of cells without anything to check
NOT_RUN = ('not built', 'found by itself', 'always, where', 'follows from')
# defaults of substance that its notes name beside flags, and the types of models
DEFAULTS = (
    *(
        'wd 0.02',
        'betas (0.9, 0.95)',
        'grad clip 3.0',
        'EMA 0.9999',
        'cosine or constant lr',
        'label drop 0.1',
        'eval_freq 40',
    ),
    *('save_last_freq 2', 'contrastive scale 0.05', 'refinement scale 0.1', 'mask_ratio_min 0.7', 'buffer 64', 'dropout 0.1'),
    *('seed 42', 'workers 10', 'grad_accu 1', 'ddit', 'debt', 'debt_diffusion', 'linear_then_mean'),
)


class FlagRow(Row):
    """A row whose options are those of energy diffusion, or of MAR."""

    @property
    def config(self) -> str:
        return MAR if self.ours.startswith('of MAR') else CONFIG


def test_the_table_is_that_of_its_source() -> None:
    """If this fails: python -m tests.flag_tables"""
    assert page_of('energy').read_text(encoding='utf-8') == written('energy')


def test_every_flag_of_the_document_and_of_the_notes_has_a_row() -> None:
    document = find(SHARED / 'reference/systems/004.txt', 'the folder shared').read_text()
    notes = find(SHARED / 'reference/systems-000-001-002-004.md', 'the folder shared').read_text()
    features = notes.partition('### D1.')[2].partition('### D2.')[0]
    wanted = {flag for text in (document, features) for flag in re.findall(r'--[a-z_]+', text)} | set(DEFAULTS)
    assert len(wanted) > 70
    rows = [flag.theirs for flag in flags('energy')]
    assert len(rows) == len(set(rows)), 'a flag has one row'
    missing = sorted(wanted - set(rows))
    assert not missing, missing


@pytest.mark.slow
def test_what_stands_in_every_row_can_be_used() -> None:
    """Parses and resolves; the options of all rows are composed together, as far as they do not exclude each other."""
    wanted: dict[str, list[Pairs]] = {CONFIG: [], MAR: []}
    for flag in flags('energy'):
        row = FlagRow('Flags', flag.theirs, flag.ours)
        if not row.ours.startswith(NOT_RUN):
            used = [kind for code in CODE.findall(row.ours) for kind in uses(row, code, wanted)]
            assert used, f'nothing to check in {flag.theirs}'
    assert len(wanted[CONFIG]) > 20 and len(wanted[MAR]) > 5
    for config, pairs in wanted.items():
        for options, overrides in together(pairs):
            composed = compose(config, options, overrides, tiny=False)
            checked(composed, 'trainer')
            checked(composed, 'validator')
