"""``tools/pairs.py`` against closed forms, torchmetrics, and itself with other batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.features import pictures, save_folder
from vq.cli import pairs

FIRST = pictures(1, 6)
SECOND = np.clip(FIRST.astype(int) + np.random.default_rng(2).integers(-30, 30, FIRST.shape), 0, 255).astype(np.uint8)
QUICK = ['--lpips', 'none', '--config-options', 'num_workers:0']


def measure(folder: Path, *arguments: str) -> dict[str, Any]:
    assert pairs.main([str(folder / 'a'), str(folder / 'b'), '--work-dir', str(folder / 'found'), *QUICK, *arguments]) == 0
    record: dict[str, Any] = json.loads((folder / 'found/pairs.json').read_text())
    return record['results']


@pytest.mark.slow
def test_figures_are_those_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    save_folder(tmp_path / 'a', FIRST)
    save_folder(tmp_path / 'b', SECOND)
    found = measure(tmp_path)
    squares = ((FIRST / 255.0 - SECOND / 255.0) ** 2).mean((1, 2, 3))
    assert found['mse'] == pytest.approx(squares.mean(), rel=1e-6)
    assert found['psnr'] == pytest.approx((-10 * np.log10(squares)).mean(), rel=1e-6)
    assert found['l1'] == pytest.approx(np.abs(FIRST / 255.0 - SECOND / 255.0).mean(), rel=1e-6)
    one, other = (torch.from_numpy(x / 255.0).permute(0, 3, 1, 2) for x in (FIRST, SECOND))
    theirs = structural_similarity_index_measure(other, one, data_range=1.0)
    assert found['ssim'] == pytest.approx(float(theirs), abs=1e-4) and found['ssim'] != found['ssim_uniform']
    assert found['samples'] == 6 and 'psnr' in capsys.readouterr().out
    again = measure(tmp_path, '--batch-size', '1')
    assert {**again, 'seconds': 0} == {**found, 'seconds': 0}


def test_what_is_left_out_is_listed_and_sizes_may_vary_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_folder(tmp_path / 'a', FIRST)
    save_folder(tmp_path / 'b', SECOND[:4])
    assert pairs.main([str(tmp_path / 'a'), str(tmp_path / 'b'), '--work-dir', str(tmp_path / 'found'), *QUICK]) == 2
    assert '2 only in' in capsys.readouterr().err
    assert measure(tmp_path, '--common')['samples'] == 4
    assert 'left out: 2 only in' in capsys.readouterr().err
    for name in 'ab':
        save_folder(tmp_path / name / 'more', pictures(3, 1, 20))
    assert measure(tmp_path, '--common', '--batch-size', '1')['samples'] == 5
