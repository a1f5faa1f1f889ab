"""SA-Med2D-20M in its layout on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.data.datasets.sa_med2d import SAMed2DDataset
from vq.registries import VQDatasetRegistry

NAMES = [f'images/{kind}--ACDC--patient{number:03d}--x_{number:04d}.png' for kind in ('mr_00', 'ct_00') for number in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        file = tmp_path / 'SAMed2Dv1' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (9, 7), 40).save(file)
    masks = {name: [f'masks/{Path(name).stem}--0000_{mask:03d}.png' for mask in range(3)] for name in NAMES}
    (tmp_path / 'SAMed2Dv1' / 'SAMed2D_v1.json').write_text(json.dumps(masks, indent=1))
    return tmp_path


def ids(dataset: SAMed2DDataset) -> list[str]:
    return [dataset.id_of(index) for index in range(len(dataset))]


def test_images_have_the_order_of_the_list(root: Path) -> None:
    dataset = SAMed2DDataset(root)
    assert ids(dataset) == [f'SAMed2Dv1/{name}' for name in NAMES]
    assert dataset.read(3).shape == (7, 9, 3)
    inside = SAMed2DDataset(root / 'SAMed2Dv1')
    assert ids(inside) == NAMES
    (root / 'SAMed2Dv1/annotations').mkdir()
    (root / 'SAMed2Dv1/SAMed2D_v1.json').rename(root / 'SAMed2Dv1/annotations/SAMed2D_v1.json')
    assert ids(SAMed2DDataset(root / 'SAMed2Dv1')) == NAMES
    (root / 'SAMed2Dv1/annotations/SAMed2D_v1.json').unlink()
    assert ids(SAMed2DDataset(root / 'SAMed2Dv1')) == sorted(NAMES)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[]', 'not a JSON object'),
        ('{"images/a.png": ["x"', 'not a JSON object'),
        ('{"images/a.png"', 'not a JSON object'),
        ('{}', 'lists no image'),
        ('{"images/../../a.png": []}', 'no image in the folder'),
        ('{"/etc/passwd": []}', 'no image in the folder'),
        ('{1: []}', 'not a JSON object'),
    ],
)
def test_damaged_lists_are_refused(root: Path, text: str, words: str) -> None:
    (root / 'SAMed2Dv1/SAMed2D_v1.json').write_text(text)
    with pytest.raises(UserError, match=words):
        len(SAMed2DDataset(root))


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / 'raw').mkdir()
    with pytest.raises(ConfigError, match='has no folder images; it holds: raw'):
        len(SAMed2DDataset(tmp_path))


def test_the_config_holds_out_every_nth(root: Path) -> None:
    config = PyConfig.load('configs/datasets/interface.py', dataset='sa_med2d_20m', data_root=str(root), held_out=3)
    train, validation = (VQDatasetRegistry.build(config[role].dataset) for role in ('trainer', 'validator'))
    assert ids(validation) == [f'SAMed2Dv1/{NAMES[place]}' for place in (0, 4, 8)]
    assert ids(train) == [f'SAMed2Dv1/{name}' for place, name in enumerate(NAMES) if place % 4]
    published = PyConfig.load('configs/datasets/interface.py', dataset='sa_med2d_20m')
    assert published.validator.dataset.held_out == 25_000
    with pytest.raises(ConfigError, match='holds out 25000 of 12 samples'):
        len(VQDatasetRegistry.build({**published.trainer.dataset, 'dataset': {'type': 'SAMed2DDataset', 'root': str(root)}}))
