"""ImageNet from its tars: the same samples as from folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.test_tars import ids, png, write
from vq.core.config import PyConfig
from vq.core.errors import ConfigError
from vq.data.datasets.imagenet import ImageNetDataset
from vq.data.datasets.imagenet_tar import ImageNetTarDataset
from vq.registries import VQDatasetRegistry

CLASSES = ('n01440764', 'n01443537', 'n02119789')


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images of each class to train, one to validate, in tars and in folders."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    inner, validation, lines = {}, {}, ['ImageId,PredictionString']
    for number, wnid in enumerate(reversed(CLASSES)):
        images = {f'{wnid}_{image}.JPEG': png(10 * number + image) for image in (2, 1)}
        inner[f'{wnid}.tar'] = write(tmp_path / f'classes/{wnid}.tar', images).read_bytes()
        name = f'ILSVRC2012_val_0000000{number}'
        validation[f'{name}.JPEG'] = png(100 + number)
        lines.append(f'{name},{wnid} 1 2 3 4 {CLASSES[0]} 5 6 7 8')
        for path, data in {f'train/{wnid}/{file}': data for file, data in images.items()}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(data)
        (tmp_path / f'val/{wnid}').mkdir(parents=True)
        (tmp_path / f'val/{wnid}/{name}.JPEG').write_bytes(png(100 + number))
    write(tmp_path / 'ILSVRC2012_img_train.tar', inner)
    write(tmp_path / 'ILSVRC2012_img_val.tar', validation)
    (tmp_path / 'LOC_val_solution.csv').write_text('\n'.join(lines))
    return tmp_path


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_samples_are_those_of_the_folders(root: Path, split: str) -> None:
    tars, folders = ImageNetTarDataset(root, split), ImageNetDataset(root, split)
    assert ids(tars) == ids(folders) and len(tars) == (6 if split == 'train' else 3)
    assert tars.categories == folders.categories == CLASSES
    for index in range(len(tars)):
        assert tars.category_of(index) == folders.category_of(index)
        assert (tars.read(index) == folders.read(index)).all()
    assert tars.fingerprint() == folders.fingerprint()


def test_classes_of_validation_images_are_looked_for(root: Path) -> None:
    (root / 'LOC_val_solution.csv').unlink()
    with pytest.raises(ConfigError, match=r'3 of 3 images, such as ILSVRC2012_val_00000000\.JPEG, have no class') as error:
        len(ImageNetTarDataset(root, 'val'))
    assert 'LOC_val_solution.csv or val.txt' in error.value.hint
    (root / 'val.txt').write_text(''.join(f'ILSVRC2012_val_0000000{n}.JPEG {CLASSES[n]}\n' for n in range(3)))
    assert [ImageNetTarDataset(root, 'val').category_of(n) for n in range(3)] == [0, 1, 2]
    (root / 'val.txt').write_text('nothing')
    with pytest.raises(ConfigError, match='no line with the name of an image'):
        len(ImageNetTarDataset(root, 'val'))
    (root / 'ILSVRC2012_img_train.tar').unlink()
    with pytest.raises(ConfigError, match=r'no ILSVRC2012_img_train\.tar or train\.tar in .*, it holds: ILSVRC2012_img_val'):
        len(ImageNetTarDataset(root))
    with pytest.raises(ConfigError, match="no split 'test'"):
        ImageNetTarDataset(root, 'test')


def test_the_config_reads_the_tars(root: Path) -> None:
    config = PyConfig.load('configs/datasets/interface.py', dataset='imagenet_tar', data_root=str(root))
    built = [VQDatasetRegistry.build(config[role].dataset) for role in ('trainer', 'validator')]
    assert [len(dataset) for dataset in built] == [6, 3]
