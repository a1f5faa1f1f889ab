"""``tools/fid.py``: figures of folders and files of samples, their references, and errors for wrong inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.features import features_of, figures, pictures, run_fid, save_folder
from tests.ranks import GlooPool

REAL, MADE = pictures(1), pictures(2, 33)


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``real/`` and ``made/`` as PNG, ``real.npz`` and ``made.npz`` of the same pictures."""
    folder = tmp_path_factory.mktemp('home')
    for name, images in (('real', REAL), ('made', MADE)):
        save_folder(folder / name, images)
        np.savez(folder / f'{name}.npz', images)
    return folder


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The distance by eigenvalues of the product, unlike our implementation."""
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * roots)


EVERYTHING = ['--figures', 'fid', 'sfid', 'kid', 'precision_recall', 'density_coverage', 'cmmd', 'inception_score']


def test_figures_are_those_of_the_features_and_the_record_says_of_what(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_fid(str(home), 'real', 'made.npz', '--work-dir', 'one', '--batch-size', '7') == 0
    found = figures(home, 'one')
    assert found['samples'] == 33
    assert found['fid'] == pytest.approx(frechet(features_of(MADE), features_of(REAL)), rel=1e-6)
    record = json.loads((home / 'one/fid.json').read_text())
    said = record['metrics']['features']
    assert said['count'] == 33 and said['reference']['count'] == 40 and said['reference']['name'] == 'real'
    assert said['network'] == 'ProjectionOfTests' and len(said['reference']['hash']) == 16
    assert record['seed'] == 3407 and record['command'].startswith('python -m vq.tools.fid real made.npz')
    line = (home / 'one/fid.txt').read_text()
    assert f'fid {found["fid"]:.5g}' in line and record['command'] in line and line.count('\n') == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f'fid {found["fid"]:.6g}') and '33 images, against real (40 images' in last


@pytest.mark.slow
def test_folders_files_and_batches_give_one_figure_and_results_add_up(home: Path) -> None:
    calls = [('real', 'made', '5'), ('real.npz', 'made.npz', '64'), ('real', 'made.npz', '1')]
    found = []
    for reference, images, size in calls:
        assert run_fid(str(home), reference, images, '--work-dir', 'many', '--batch-size', size, *EVERYTHING) == 0
        found.append(figures(home, 'many'))
    assert {'fid', 'sfid', 'kid', 'precision', 'recall', 'density', 'coverage', 'cmmd', 'inception_score'} <= set(found[0])
    for other in found[1:]:  # kid draws its subsets, and the score its splits, by ids, which are other ones in a file
        same = [name for name in found[0] if not name.startswith(('inception', 'kid'))]
        assert [other[name] for name in same] == [pytest.approx(found[0][name], rel=1e-9) for name in same]
    assert (home / 'many/fid.txt').read_text().count('\n') == 3


@pytest.mark.slow
def test_samples_that_vq_test_writes_have_the_fid_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.runners.support import train, write_config
    from vq.cli import compare, test

    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    assert train(str(tmp_path), 'run', 'tiny.py', '--override', '.trainer.iters:4') == 0
    metric = "dict(type='FeatureMetric', network=dict(type='ProjectionOfTests'))"
    inputs = "[dict(type='SamplesCallback', file='inputs.npz', images='input')]"
    asked = ['--samples', '--visual', '--num-samples', '50', '--override', f'.validator.metrics.features:{metric}']
    asked += [f'.validator.callbacks:{inputs}', '.validator.dataloader.batch_size:16']
    assert test.main(['run', 'tiny.py', '--load-model-from', 'work_dirs/run', *asked]) == 0
    folder = tmp_path / 'work_dirs/run_test'
    assert {path.name for path in (folder / 'visual').iterdir()} >= {'worst.png', 'best.png', 'extremes.json'}
    assert run_fid(str(folder), 'inputs.npz', 'samples.npz', '--figures', 'fid', '--work-dir', 'again') == 0
    results = json.loads((folder / 'results.json').read_text())['results']
    assert figures(folder, 'again') == {'samples': 50, 'skipped': 0, 'fid': pytest.approx(results['fid'], rel=1e-6)}
    assert compare.main([str(folder / 'results.json'), str(folder / 'again/fid.json')]) == 0
    said = capsys.readouterr().out
    assert 'features: run and again do not compare: network' not in said and 'reference hash is' in said


@pytest.mark.slow
def test_two_ranks_give_the_figures_of_one(home: Path, gloo_pool: GlooPool) -> None:
    run_fid(str(home), 'real', 'made', '--work-dir', 'alone', '--batch-size', '64', *EVERYTHING)
    assert gloo_pool.run(run_fid, str(home), 'real', 'made', '--work-dir', 'two', '--batch-size', '3', *EVERYTHING) == [0, 0]
    assert figures(home, 'two') == {name: pytest.approx(value, rel=1e-9) for name, value in figures(home, 'alone').items()}


@pytest.mark.slow
def test_names_and_statistics_are_references(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    rows = features_of(REAL)
    (tmp_path / 'fid').mkdir()
    np.savez(tmp_path / 'fid/some_validation.npz', mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))
    np.savez(tmp_path / 'adm.npz', mu=rows.mean(0), sigma=np.cov(rows, rowvar=False), arr_0=REAL[:10])
    for reference in ('some_validation', 'some_val', str(tmp_path / 'fid/some_validation.npz'), str(tmp_path / 'adm.npz')):
        assert run_fid(str(home), reference, 'made', '--work-dir', 'named', '--figures', 'fid') == 0
        assert figures(home, 'named')['fid'] == pytest.approx(frechet(features_of(MADE), rows), rel=1e-6)
    np.savez(tmp_path / 'features.npz', rows)  # as arr_0, which is the name of images elsewhere
    asked = ['--work-dir', 'raw', '--figures', 'fid', 'kid', '--override', '.metrics.features.subset_size:30']
    assert run_fid(str(home), str(tmp_path / 'features.npz'), 'made', *asked) == 0
    found = figures(home, 'raw')
    assert found['fid'] == pytest.approx(frechet(features_of(MADE), rows), rel=1e-6) and 'kid' in found
    notes = json.loads((home / 'raw/fid.json').read_text())['metrics']['features']['notes']
    assert any('does not record network, preprocessing, precision, network_hash' in note for note in notes)
    assert run_fid(str(home), str(tmp_path / 'adm.npz'), 'made', '--reference-images', '--work-dir', 'named') == 0
    assert figures(home, 'named')['fid'] == pytest.approx(frechet(features_of(MADE), features_of(REAL[:10])), rel=1e-6)


def test_one_that_needs_no_reference(home: Path) -> None:
    assert run_fid(str(home), 'none', 'made', '--figures', 'inception_score', '--work-dir', 'none') == 0
    assert figures(home, 'none')['inception_score'] >= 1


def complaint(capsys: pytest.CaptureFixture[str], home: Path, *arguments: str) -> str:
    assert run_fid(str(home), *arguments, '--work-dir', 'wrong') == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ('images', 'words'),
    [
        (MADE.astype(np.float32) / 255, ['float32', 'no agreed range', 'astype(np.uint8)']),
        (MADE.astype(np.int64), ['int64', 'uint8 is needed']),
        (MADE[..., 0], ['gray', 'np.repeat']),
        (MADE[..., :1], ['gray', 'np.repeat']),
        (MADE.transpose(0, 3, 1, 2), ['channels come first', 'transpose(0, 2, 3, 1)']),
        (MADE[:0], ['no image']),
    ],
)
def test_wrong_files_of_samples(home: Path, capsys: pytest.CaptureFixture[str], images: np.ndarray, words: list[str]) -> None:
    np.savez(home / 'wrong.npz', images)
    said = complaint(capsys, home, 'real', 'wrong.npz')
    assert all(word in said for word in words), said


def test_wrong_folders_and_references(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (home / 'empty').mkdir()
    assert 'holds no image' in complaint(capsys, home, 'real', 'empty')
    assert 'holds no image' in complaint(capsys, home, 'empty', 'made')
    assert 'does not exist' in complaint(capsys, home, 'real', 'nowhere')
    assert 'does not exist' in complaint(capsys, home, 'no/where.npz', 'made')
    assert 'no statistics of a reference set' in complaint(capsys, home, 'nothing', 'made')
    np.savez(home / 'labels.npz', labels=np.arange(3))
    said = complaint(capsys, home, 'real', 'labels.npz')
    assert "'labels' (3,)" in said and 'uint8 (N, H, W, 3)' in said
    (home / 'page.npz').write_text('<html>')
    assert 'not a readable .npz' in complaint(capsys, home, 'real', 'page.npz')
    rows = features_of(REAL)
    np.savez(home / 'both.npz', mu=rows.mean(0), sigma=np.cov(rows, rowvar=False), arr_0=REAL[:9])
    said = complaint(capsys, home, 'both.npz', 'made', '--figures', 'fid', 'precision_recall')
    assert '9 images of that set' in said and '--reference-images' in said
    assert 'Only inception_score needs none' in complaint(capsys, home, 'none', 'made')


def test_shards_are_said_to_be_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vq.io.shards import ShardWriter

    ShardWriter(home / 'shards', kind='tokens', total=4, shard_size=4, producer={'made_by': 'a test'})
    assert 'holds shards of tokens, not images' in complaint(capsys, home, 'real', 'shards')


def test_sizes_that_differ(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_folder(home / 'mixed', MADE[:4])
    save_folder(home / 'mixed/last', pictures(3, 1, 24))
    for size in ('1', '64'):
        said = complaint(capsys, home, 'real', 'mixed', '--batch-size', size)
        assert 'several sizes' in said and '16 x 16' in said and '24 x 24' in said
    np.savez(home / 'other_size.npz', pictures(4, 6, 20))
    assert 'has image_size [16, 16], and these images [20, 20]' in complaint(capsys, home, 'real', 'other_size.npz')


def test_a_reference_of_another_network(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vq.metrics.features.reference import read_reference, write_reference

    assert run_fid(str(home), 'real', 'made', '--work-dir', 'first') == 0
    reference = read_reference(home / 'first/reference/real.npz')
    for field in ('network', 'preprocessing', 'network_hash'):
        reference.about = {**reference.about, field: 'another'}
        write_reference(home / 'another.npz', reference)
        assert f"has {field} 'another'" in complaint(capsys, home, 'another.npz', 'made')
        reference = read_reference(home / 'first/reference/real.npz')


def test_features_that_are_no_numbers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, home, 'real', 'made', '--override', '.metrics.features.network.broken:True')
    assert 'NaN or infinite' in said and 'fp32' in said


@pytest.mark.slow
def test_what_moves_figures_is_a_warning_and_stands_in_the_record(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_folder(home / 'jpeg', MADE, '.jpg')
    save_folder(home / 'gray', MADE[..., 0])
    for name, word in (('jpeg', '33 of the 33 images in jpeg are JPEG'), ('gray', 'are gray (33 of 33')):
        assert run_fid(str(home), 'real', name, '--work-dir', name, '--figures', 'fid') == 0
        assert word in capsys.readouterr().err
        assert any(word in note for note in json.loads((home / name / 'fid.json').read_text())['notes'])
    assert run_fid(str(home), 'jpeg', 'made', '--work-dir', 'original', '--figures', 'fid') == 0  # originals may be JPEG
    assert 'JPEG' not in capsys.readouterr().err
    np.savez(home / 'few.npz', MADE[:4])
    assert run_fid(str(home), 'real', 'few.npz', '--work-dir', 'few', '--figures', 'fid') == 0
    assert '4 samples do not span the 5 dimensions' in capsys.readouterr().err
    notes = json.loads((home / 'few/fid.json').read_text())['metrics']['features']['notes']
    assert any('biased upwards' in note for note in notes)
