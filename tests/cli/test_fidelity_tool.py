"""``tools/fidelity.py``: torch-fidelity's figures and ours, of the same images and the same weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.features import pictures, save_folder
from tests.runners.support import commands_here
from tests.teachers.inception_weights import published_layout
from vq.cli import fidelity


@pytest.mark.slow
def test_both_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('torch_fidelity')
    from vq.teachers.inception import FILE, FIDInception

    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path / 'pretrained'))
    file = tmp_path / 'pretrained' / FILE
    file.parent.mkdir(parents=True)
    torch.save(published_layout(FIDInception(), 0), file)
    save_folder(tmp_path / 'real', pictures(0, 4, 32))
    np.savez(tmp_path / 'made.npz', (pictures(1, 4, 32) // 2 + 60).astype(np.uint8))
    places = [str(tmp_path / 'real'), str(tmp_path / 'made.npz'), '--work-dir', str(tmp_path / 'found')]
    asked = ['--figures', 'fid', 'inception_score', 'kid', '--splits', '1', '--ours']
    more = ['--override', '.metrics.features.subset_size:4', '.metrics.features.subsets:3']
    assert fidelity.main([*places, *asked, *more]) == 0
    record = json.loads((tmp_path / 'found/fidelity.json').read_text())
    ours, theirs = record['results'], record['torch_fidelity']
    assert ours['fid'] > 1e-3
    for name in ('fid', 'inception_score', 'kid'):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    said = capsys.readouterr().out
    assert 'ours' in said and 'torch-fidelity' in said and 'difference' in said
    assert f'fid {theirs["fid"]:.5g}' in (tmp_path / 'found/torch_fidelity.txt').read_text()


@pytest.mark.slow
def test_all_figures_agree_on_the_same_images_and_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 images, with the small network of dry runs."""
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=True):
        save_folder(tmp_path / 'real', pictures(0, 200, 32))
        np.savez(tmp_path / 'made.npz', (pictures(1, 200, 32) // 8 * 7 + 16).astype(np.uint8))
        figures = ['fid', 'inception_score', 'kid', 'precision_recall']
        asked = ['--figures', *figures, '--splits', '1', '--ours', '--override', '.metrics.features.subset_size:200']
        assert fidelity.main(['real', 'made.npz', '--work-dir', 'found', *asked]) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / 'found/fidelity.json').read_text())
    ours, theirs = record['results'], record['torch_fidelity']
    assert ours['fid'] > 1e-6 and 0 < ours['precision'] < 1 and 0 < ours['recall'] < 1
    for name in ('fid', 'inception_score', 'kid', 'precision', 'recall'):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, 'torch_fidelity', None)
    assert fidelity.main(['digits', str(tmp_path)]) == 2
    assert "pip install 'vq[peers]'" in capsys.readouterr().err
    monkeypatch.setattr(fidelity, 'torch_fidelity', lambda: None)
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    assert fidelity.main(['digits', str(tmp_path)]) == 2
    assert 'pt_inception-2015-12-05-6726825d.pth' in capsys.readouterr().err
    save_folder(tmp_path / 'real', pictures(0, 2))
    monkeypatch.setattr(fidelity, 'weights_file', lambda: tmp_path)
    assert fidelity.main([str(tmp_path / 'real'), str(tmp_path), '--train']) == 2
    assert 'no training split' in capsys.readouterr().err


def test_a_dataset_by_name_is_the_reference(tmp_path: Path) -> None:
    """torch-fidelity gets the images of the split, channels first."""
    from vq.data.datasets.digits import DigitsDataset
    from vq.runners.images import Pictures

    save_folder(tmp_path / 'made', pictures(0, 2, 32))
    options = fidelity.make_parser().parse_args(['digits', str(tmp_path / 'made'), '--train'])
    options.override = {}
    validator = fidelity.build(options, fidelity.choices_of(options, tmp_path))
    found = Pictures(validator.reference)
    assert len(found) == 1437 and found[3].shape == (3, 32, 32) and found[3].dtype == torch.uint8
    assert np.array_equal(found[3].permute(1, 2, 0).numpy(), DigitsDataset('train').read(3))
