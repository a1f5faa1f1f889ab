"""``tools/compare.py``: the best of comparable figures is marked, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from vq.cli import compare

SAID = {
    'network': 'FIDInception',
    'preprocessing': 'tensorflow',
    'precision': 'fp32',
    'network_hash': 'n',
    'count': 50_000,
    'image_size': [256, 256],
    'reference': {'name': 'imagenet_validation', 'hash': 'h', 'count': 50_000},
}
RECORD = {
    'name': 'one',
    'results': {'samples': 50_000, 'fid': 5.0, 'psnr': 20.0, 'lpips_vgg': 0.2, 'perplexity': 300.0, 'seconds': 3.0},
    'dataset': {'name': 'imagenet', 'split': 'validation', 'fingerprint': 'f'},
    'metrics': {'features': SAID},
    'random_weights': False,
}


def record(name: str, fid: float, psnr: float, **changes: Any) -> dict[str, Any]:
    """``changes``: values by path, with __ between its names."""
    made: dict[str, Any] = copy.deepcopy(RECORD)
    made['name'], made['results']['fid'], made['results']['psnr'] = name, fid, psnr
    for path, value in changes.items():
        *way, last = path.split('__')
        place = made
        for step in way:
            place = place[step]
        place[last] = value
    return made


def show(tmp_path: Path, capsys: pytest.CaptureFixture[str], *records: dict[str, Any]) -> str:
    files = []
    for number, made in enumerate(records):
        files.append(str(tmp_path / f'{number}.json'))
        Path(files[-1]).write_text(json.dumps(made))
    assert compare.main(files) == 0
    return capsys.readouterr().out


def row(text: str, name: str) -> list[str]:
    """The cells of the first row of that name."""
    line = next(line for line in text.splitlines() if line.split('│')[0].strip() == name)
    return [cell.strip() for cell in line.split('│')[1:]]


def test_the_best_is_marked_where_it_is_known_which_way_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = show(tmp_path, capsys, record('one', 5.0, 20.0), record('two', 4.0, 19.0))
    assert row(said, 'fid') == ['5', '4*'] and row(said, 'psnr') == ['20*', '19']
    assert row(said, 'lpips_vgg') == ['0.2*', '0.2*'] and row(said, 'perplexity') == ['300', '300']
    assert 'seconds' not in said and 'do not compare' not in said


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'metrics__features__reference__hash': 'g'}, 'reference hash is h and g'),
        ({'metrics__features__reference__count': 10_000}, 'reference count is 50000 and 10000'),
        ({'metrics__features__count': 10_000}, 'count is 50000 and 10000'),
        ({'metrics__features__network': 'DINOv2'}, 'network is FIDInception and DINOv2'),
        ({'metrics__features__network_hash': 'm'}, 'network_hash is n and m'),
        ({'metrics__features__preprocessing': 'pytorch_fid'}, 'preprocessing is tensorflow and pytorch_fid'),
        ({'metrics__features__precision': 'bf16'}, 'precision is fp32 and bf16'),
    ],
)
def test_figures_of_other_references_are_not_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], reason: str
) -> None:
    said = show(tmp_path, capsys, record('one', 5.0, 20.0), record('two', 1.0, 19.0, **change), record('three', 6.0, 18.0))
    assert f'one and two do not compare: {reason}' in said
    assert 'group 1 of 2' in said and row(said, 'fid') == ['5*', '6']
    assert '1*' not in said  # alone in its group
    assert row(said, 'psnr') == ['20*', '19', '18']  # that does not depend on the reference


def test_other_data_keep_everything_apart_and_samples_of_models_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {'dataset__fingerprint': 'g'}
    said = show(tmp_path, capsys, record('one', 5.0, 20.0), record('two', 4.0, 19.0, **other))
    assert '*' not in said and said.count('dataset fingerprint is f and g') == 2
    of_images = [record('one', 5.0, 20.0), record('two', 4.0, 19.0, **other)]
    for made in of_images:
        made['measures'], made['results'] = 'images', {'samples': 50_000, 'fid': made['results']['fid']}
    assert row(show(tmp_path, capsys, *of_images), 'fid') == ['5', '4*']


def test_images_as_their_own_reference_and_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {'metrics__features__reference': {'name': 'the images themselves', 'hash': '', 'count': 50_000}}
    said = show(tmp_path, capsys, record('one', 5.0, 20.0, **own), record('two', 4.0, 19.0, **own))
    assert row(said, 'fid') == ['5', '4*']
    said = show(tmp_path, capsys, record('one', 5.0, 20.0), record('two', 4.0, 19.0, random_weights=True))
    assert '*' not in said and 'random weights is False and True' in said


def test_reference_images_go_by_what_they_are_and_not_by_the_file_of_their_statistics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {'measures': 'images', 'reference_is_images': True}
    records = [
        record(name, fid, 20.0, **made, metrics__features__reference__hash=name, metrics__features__reference__fingerprint=of)
        for name, fid, of in (('one', 5.0, 'f'), ('two', 4.0, 'f'), ('three', 3.0, 'g'))
    ]
    said = show(tmp_path, capsys, *records)
    assert row(said, 'fid') == ['5', '4*'] and 'one and three do not compare: reference fingerprint is f and g' in said


def test_numbers_that_are_none_and_names_that_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = record('run', 5.0, 20.0), record('run', 4.0, 19.0)
    first['results']['fid'], second['results']['l1'] = 'nan', 0.1
    said = show(tmp_path, capsys, first, second)
    assert row(said, 'fid') == ['nan', '4'] and row(said, 'l1') == ['-', '0.1']
    assert '0.json' in said and '1.json' in said


def test_files_that_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'a.json').write_text('[1]')
    (tmp_path / 'b.json').write_text('<html>')
    for name, words in (('a', 'holds no results'), ('b', 'cannot be read'), ('c', 'cannot be read')):
        assert compare.main([str(tmp_path / f'{name}.json')]) == 2
        assert words in capsys.readouterr().err
