"""The demo's figures of new digits, against closed forms and small cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vq.core.errors import RunFailure
from vq.demo.generator import read_samples
from vq.interfaces import FeatureNetwork, Features
from vq.io.pictures import save_png
from vq.io.shards import ShardWriter
from vq.report.facts import Drawn
from vq.report.figures import Reference, Seen
from vq.report.of_generator import check_kept, first_of_each, nearest_of_many, neighbours_of


class Corners(FeatureNetwork):
    """Features of an image are its first two red pixels; its class is the index of the larger one."""

    dimension = 2

    def forward(self, image):
        pooled = image[:, 0, 0, :2].float()
        return Features(pooled, pooled)


class Learned:
    """Training images by rows."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def id_of(self, row: int) -> str:
        return f't/{row}'

    def read(self, rows: list[int]) -> np.ndarray:
        return self.images[rows]


def images(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (rows, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_set_against_itself():
    """Distance 0, relative distance 1, all tokens shared; agreement is that of the classifier."""
    pictures, tokens = images(230), torch.arange(230 * 4).view(230, 2, 2)
    named = (pictures[:, 0, 0, 1] > pictures[:, 0, 0, 0]).long()
    network = Corners()
    seen = Seen(network, pictures)
    assert torch.equal(seen.named, named)
    wrong = named.clone()
    wrong[:23] = 1 - wrong[:23]
    found = Reference(network, pictures, named, tokens).compare(seen, pictures, named, tokens)
    assert found['fd_train'] == pytest.approx(0, abs=1e-6) and found['within'] == pytest.approx(1)
    assert found['share_mean'] == found['share_most'] == found['agreement'] == 1
    assert found['distinct'] == found['samples'] == 230
    assert Reference(network, pictures, named, tokens).compare(seen, pictures, wrong, tokens)['agreement'] == 0.9


def test_a_shifted_set_of_twice_the_contrast():
    """FD of features 2x + 10 and x: |m + 10|^2 + tr C, of the covariance C of x; distances within classes double."""
    network, small = Corners(), images(64) // 4
    large, category = 2 * small + 10, torch.arange(64) % 2
    tokens = torch.zeros(64, 2, 2, dtype=torch.int64)
    found = Reference(network, small, category, tokens).compare(Seen(network, large), large, category, tokens)
    x = small[:, 0, 0, :2].double()
    wanted = (x.mean(0) + 10).square().sum() + x.var(0).sum()
    assert found['fd_train'] == pytest.approx(float(wanted), rel=1e-6)
    assert found['within'] == pytest.approx(2)
    assert found['distinct'] == 1


def test_neighbours_are_the_first_of_each_class_and_the_closest():
    grids = torch.tensor([[1, 2, 3, 4], [9, 9, 9, 9], [5, 6, 7, 8], [1, 2, 3, 8], [5, 9, 9, 9]]).view(5, 2, 2)
    training = torch.tensor([[5, 6, 7, 8], [1, 2, 3, 4], [0, 0, 3, 8]]).view(3, 2, 2)
    digits = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (10, 20, 30)])
    asked = np.array([4, 7, 7, 7, 4])
    pictures = images(5).permute(0, 2, 3, 1).numpy()
    found = neighbours_of(Drawn(pictures, asked, asked, {}), grids, Learned(digits), training, closest=2)
    assert found.categories == ['4', '7', '7', '7'], 'first of 4, first of 7, then the two others that share most'
    np.testing.assert_array_equal(found.images, pictures[[0, 1, 2, 3]])
    np.testing.assert_array_equal(found.shares, [[1, 0.25, 0], [0, 0, 0], [1, 0.25, 0], [0.75, 0.5, 0.25]])
    assert found.ids == [['t/1', 't/2', 't/0'], ['t/0', 't/1', 't/2'], ['t/0', 't/2', 't/1'], ['t/1', 't/2', 't/0']]
    assert found.training[3, :, 0, 0, 0].tolist() == [20, 30, 10]


@pytest.mark.parametrize('part', [2, 3, 100])
def test_neighbours_in_parts_are_those_of_the_whole(part):
    stream = torch.Generator().manual_seed(1)
    grids, others = (torch.randint(0, 3, (rows, 2, 3), generator=stream) for rows in (5, 17))
    shares, rows = nearest_of_many(grids, others, 2, part)
    for grid, share, row in zip(grids, shares, rows, strict=True):
        equal = (others == grid).flatten(1).double().mean(1).tolist()
        expected = sorted(range(17), key=lambda index: (-equal[index], index))[:2]
        assert row.tolist() == expected and share.tolist() == pytest.approx([equal[index] for index in expected])


def test_a_changed_token_is_a_failure():
    given = torch.arange(12).view(3, 2, 2)
    keep = torch.tensor([[True, True], [False, False]])
    made = given.clone()
    made[:, 1] = 0
    check_kept(made, given, keep)
    made[2, 0, 1] = 0
    with pytest.raises(RunFailure, match='1 tokens that had to be kept'):
        check_kept(made, given, keep)


def test_the_first_of_each_class():
    assert first_of_each([3, 1, 1, 3, 0]) == [4, 1, 0]


def test_samples_are_read_in_the_order_of_their_numbers(tmp_path):
    """Images are matched by name with tokens and classes of the shards."""
    pictures, tokens = images(3, seed=4), np.arange(12, dtype=np.uint16).reshape(3, 2, 2)
    writer = ShardWriter(tmp_path / 'shards', kind='samples', total=3, shard_size=2, producer={})
    for part in writer.pending(0, 1):
        rows = range(part.start, part.stop)
        columns = {'tokens': tokens[rows], 'category': np.array([7, 8, 9])[rows]}
        writer.write(part, columns, [str(row) for row in rows])
    writer.finish()
    for number, picture in enumerate(pictures):
        save_png(tmp_path / 'samples' / f'{number:06d}.png', picture)
    found, grids, asked = read_samples(tmp_path)
    assert torch.equal(found, pictures)
    assert grids.dtype == torch.int64 and grids.tolist() == tokens.tolist() and asked.tolist() == [7, 8, 9]
