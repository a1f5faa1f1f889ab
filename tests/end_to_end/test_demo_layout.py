"""``make demo-layout``: its commands in a dry run, its picture, and the page of ``vq web`` that it leads to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runners.support import commands_here
from vq.cli import demo
from vq.report.layouts import CELL, SHOWN

pytestmark = pytest.mark.slow


def test_a_dry_run_trains_both_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with commands_here():
        assert demo.main(['layout']) == 0
    said = capsys.readouterr().out
    assert 'of the digits asked for in what is drawn' in said and said.rstrip().endswith('vq web')
    picture = np.asarray(Image.open('work_dirs/dry_run/layout_digits/layouts.png'))
    assert picture.shape[1] > SHOWN * CELL and picture.shape[0] > 2 * CELL
    assert (picture[:CELL].max(2) != picture[:CELL].min(2)).any(), 'boxes have colours'


def test_a_failing_command_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('work_dirs/dry_run').mkdir(parents=True)
    Path('work_dirs/dry_run/layout_segmenter').write_text('in the way')
    with commands_here():
        assert demo.main(['layout']) != 0
    assert 'the demo stopped' in capsys.readouterr().err
