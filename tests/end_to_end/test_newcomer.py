"""The five commands of a newcomer, from a wheel, in an empty directory: each leads to the next, up to new pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import messy, newcomer
from vq.io import runs

pytestmark = pytest.mark.slow

# words after the line that was printed: a whole run takes minutes
FEW = {'train tok': 'iters=12 batch_size=8 num_workers=0', 'train gen': 'iters=6 batch_size=8 num_workers=0'}


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return newcomer.install(tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def played(site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[newcomer.Done]]:
    """A directory in which the five commands were given, and what they said."""
    here = tmp_path_factory.mktemp('newcomer')
    messy.make(here / 'photos', 40, 32)
    return here, newcomer.play(here, site, FEW)


def test_each_command_leads_to_the_next(played: tuple[Path, list[newcomer.Done]]) -> None:
    """``play`` has run each line as it was printed. What two commands say of the same step agrees."""
    _, (check, tokenizer, report, generator, sample) = played
    assert check.next[0].startswith('vq train tok photos/tokenizer.py data_root=photos image_size=32')
    assert tokenizer.next == ['vq report tok', 'vq train gen photos/ar.py tokenizer=tok']
    assert report.next == tokenizer.next[1:]
    assert generator.next == ['vq sample gen'] and sample.next == ['vq report gen']


def test_what_they_say_they_wrote_is_there(played: tuple[Path, list[newcomer.Done]]) -> None:
    here, (_, _, report, _, sample) = played
    assert 'work_dirs/tok/report.html' in report.said and (here / 'work_dirs/tok/report.html').stat().st_size > 10_000
    assert 'work_dirs/gen_sample/grid.png' in sample.said
    assert len(list((here / 'work_dirs/gen_sample/samples').iterdir())) == 64
    for name in ('tok', 'gen'):
        spec = runs.find(here / 'work_dirs' / name).spec
        assert spec.categories == ('boat', 'cat', 'rocket', 'tree') and spec.image == (32, 32)


def test_classes_have_the_names_of_their_folders(played: tuple[Path, list[newcomer.Done]], site: Path) -> None:
    here, _ = played
    done = newcomer.run('vq sample gen --classes rocket --num-samples 8 --overwrite', here, site)
    assert done.next == ['vq report gen']
    drawn = [np.asarray(Image.open(path)) for path in sorted((here / 'work_dirs/gen_sample/samples').iterdir())]
    assert len(drawn) == 8 and all(picture.shape == (32, 32, 3) for picture in drawn)


def test_a_second_run_of_the_name_is_refused_and_nothing_is_lost(
    played: tuple[Path, list[newcomer.Done]], site: Path, tmp_path: Path
) -> None:
    """The same five lines in a directory where they were given before."""
    here, (_, tokenizer, *_) = played
    shutil.copytree(here, tmp_path / 'again')
    kept = (tmp_path / 'again/work_dirs/tok/checkpoints/iter_12/model.safetensors').read_bytes()
    with pytest.raises(AssertionError, match=r'(?s)exit code 2.*--auto-resume'):
        newcomer.run(tokenizer.line, tmp_path / 'again', site)
    assert (tmp_path / 'again/work_dirs/tok/checkpoints/iter_12/model.safetensors').read_bytes() == kept
