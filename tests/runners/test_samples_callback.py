"""The file of samples and the worst and best pictures of a pass, for any batches."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.ranks import GlooPool
from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.random import key_of
from vq.core.records import Batch, Outputs, to_float
from vq.data.datasets.digits import DigitsDataset
from vq.io.adm import open_samples
from vq.metrics.image import PSNRMetric
from vq.metrics.lpips import LPIPSMetric
from vq.runners.callbacks.reconstructions import ReconstructionsCallback
from vq.runners.callbacks.samples import SamplesCallback

COUNT, SIZE = 21, 8
DATASET = DigitsDataset('validation')
MADE = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(COUNT) % 10


def batch_of(places: list[int], image: Tensor = MADE) -> Batch:
    ids = [DATASET.id_of(place) for place in places]
    return Batch(image[places], ids, torch.tensor([key_of(name) for name in ids]), category=CLASSES[places])


def write(folder: str, cuts: list[list[int]], images: str = 'reconstruction') -> Path:
    callback = SamplesCallback(images=images)  # type: ignore[arg-type]
    callback.bind(SimpleNamespace(work_dir=Path(folder), dataset=DATASET))
    callback.before_run()
    for places in cuts:
        callback.after_batch(batch_of(places, 255 - MADE), Outputs(to_float(MADE[places])))
    callback.after_run()
    return Path(folder) / 'samples.npz'


CUTS = [[[*range(COUNT)]], [[place] for place in reversed(range(COUNT))], [[9, 3, 20], [*range(12)], [5, *range(12, COUNT)]]]


@pytest.mark.parametrize('cuts', CUTS)
def test_samples_stand_in_the_order_of_the_dataset_each_once(tmp_path: Path, cuts: list[list[int]]) -> None:
    with np.load(write(str(tmp_path), cuts), allow_pickle=False) as file:
        assert np.array_equal(file['arr_0'], MADE.permute(0, 2, 3, 1).numpy())
        assert np.array_equal(file['arr_1'], CLASSES.numpy())
    assert [path.name for path in tmp_path.iterdir()] == ['samples.npz']
    assert np.array_equal(open_samples(write(str(tmp_path), cuts, 'input')), 255 - MADE.permute(0, 2, 3, 1).numpy())


def write_on_a_rank(folder: str) -> None:
    rank = collectives.rank()
    write(folder, [[0, 5], [12, 13, 14], [*range(15, COUNT)]] if rank == 0 else [[*range(12)], [12]])


@pytest.mark.slow
def test_ranks_write_one_file(tmp_path: Path, gloo_pool: GlooPool) -> None:
    whole = write(str(tmp_path / 'one'), CUTS[0]).read_bytes()
    gloo_pool.run(write_on_a_rank, str(tmp_path / 'two'))
    assert (tmp_path / 'two/samples.npz').read_bytes() == whole
    assert len([*(tmp_path / 'two').iterdir()]) == 1


def test_a_model_without_pictures_is_refused(tmp_path: Path) -> None:
    callback = SamplesCallback()
    callback.bind(SimpleNamespace(work_dir=tmp_path, dataset=DATASET))
    callback.before_run()
    with pytest.raises(ConfigError, match='no reconstructions'):
        callback.after_batch(batch_of([0]), Outputs())
    with pytest.raises(ConfigError, match="writes 'inputs'"):
        SamplesCallback(images='inputs')  # type: ignore[arg-type]


ERRORS = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1)).int() + 1  # of sample i, in grey levels
GREY = torch.full((COUNT, 3, SIZE, SIZE), 100, dtype=torch.uint8)


def extremes(folder: str, cuts: list[list[int]], metrics: dict[str, object] | None = None) -> None:
    callback = ReconstructionsCallback(extremes=3)
    callback.bind(SimpleNamespace(work_dir=Path(folder), metrics=metrics or {'psnr': PSNRMetric()}))
    callback.before_run()
    for places in cuts:
        made = (GREY[places].int() + ERRORS[places, None, None, None]).to(torch.uint8)
        callback.after_batch(batch_of(places, GREY), Outputs(to_float(made)))
    callback.after_run()


@pytest.mark.parametrize('cuts', CUTS)
def test_the_worst_and_the_best_by_psnr(tmp_path: Path, cuts: list[list[int]]) -> None:
    extremes(str(tmp_path), cuts)
    said = json.loads((tmp_path / 'visual/extremes.json').read_text())
    order = torch.argsort(ERRORS).tolist()
    assert said['by'] == 'psnr'
    assert [each['id'] for each in said['best']] == [DATASET.id_of(place) for place in order[:3]]
    assert [each['id'] for each in said['worst']] == [DATASET.id_of(place) for place in order[::-1][:3]]
    assert said['best'][0]['psnr'] == pytest.approx(20 * np.log10(255), rel=1e-9)  # an error of one grey level
    with Image.open(tmp_path / 'visual/worst.png') as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 + 3 * (SIZE + 2), 2 + 3 * (SIZE + 2), 3)
    rows = [pixels[2 + row * (SIZE + 2), 2, 0] for row in range(3)]
    assert rows == [100, 100 + COUNT, 4 * COUNT]  # input, reconstruction, error four times enlarged


def test_lpips_is_what_goes_where_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = LPIPSMetric('alex')
    brightness = lambda image, made: (made.flatten(1).long().sum(1), 1.0)  # noqa: E731
    monkeypatch.setattr(metric, 'measure', brightness)
    extremes(str(tmp_path), CUTS[2], {'lpips': metric})
    said = json.loads((tmp_path / 'visual/extremes.json').read_text())
    assert said['by'] == 'lpips_alex'
    assert said['worst'][0] == {'id': DATASET.id_of(int(ERRORS.argmax())), 'lpips_alex': 3.0 * SIZE**2 * (100 + COUNT)}


def extremes_on_a_rank(folder: str) -> None:
    extremes(folder, [[*range(10)]] if collectives.rank() == 0 else [[*range(9, COUNT)]])


@pytest.mark.slow
def test_ranks_agree_on_the_extremes(tmp_path: Path, gloo_pool: GlooPool) -> None:
    extremes(str(tmp_path / 'one'), CUTS[0])
    gloo_pool.run(extremes_on_a_rank, str(tmp_path / 'two'))
    for name in ('extremes.json', 'worst.png', 'best.png'):
        assert (tmp_path / 'one/visual' / name).read_bytes() == (tmp_path / 'two/visual' / name).read_bytes()
