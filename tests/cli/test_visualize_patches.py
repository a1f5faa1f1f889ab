"""``tools/visualize_patches.py``: patches of a code are exactly the pixels of its cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vq.cli import visualize_patches
from vq.core.specs import CodecSpec, Size, TokenSpec
from vq.data.datasets.folder import FolderDataset
from vq.data.loading import LoaderSettings
from vq.interfaces import Task, Tokenizer
from vq.io.shards import ShardSet, ShardWriter
from vq.report.patch_pages import BETWEEN, HEADING, LABEL, LEAST
from vq.report.patches import LINE, TokenView, choose_codes, choose_places, cut
from vq.runners.context import RunContext
from vq.runners.tokenizer import TokenWriter
from vq.strategies.base import BaseStrategy

COUNT, SIDE, CELL = 6, 32, 8
DATA = ['--config-options', 'dataset::folder', 'data_root::pictures', 'image_size:32', 'augmentation::none']


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images whose pixels encode their position: red is the column, green the row, blue the image number."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_pictures(width: int, height: int) -> None:
    for number in range(COUNT):
        rows, columns = np.mgrid[:height, :width].astype(np.uint8)
        place = Path(f'pictures/validation/a/{number}.png')
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([columns, rows, np.full_like(rows, 10 * number)], 2)).save(place)


def write_tokens(tokens: np.ndarray, codes: int, variant: str = 'center', **more: Any) -> None:
    """``tokens`` (n, h, w) or (n, h, w, books), of the pictures above."""
    dataset = FolderDataset('pictures', 'validation')
    producer = {
        'codebook_size': codes,
        'token_shape': [*tokens.shape[1:]],
        'image_size': SIDE,
        'dataset': dataset.name,
        'split': dataset.split,
        'dataset_fingerprint': dataset.fingerprint(),
        'variants': [variant],
        **more,
    }
    writer = ShardWriter('tokens', 'tokens', len(tokens), 4, producer)
    for part in writer.pending(0, 1):
        ids = [dataset.id_of(index) for index in range(part.start, part.stop)]
        columns = {'tokens': tokens[part.start : part.stop, None], 'category': np.zeros(len(part), np.int64)}
        writer.write(part, columns, ids)
    writer.finish()


def show(*arguments: str) -> int:
    return visualize_patches.main(['digits/vq_ema.py', 'tokens', *DATA, *arguments])


def patches_on(sheet: Path, half: int, line: int, count: int, columns: int, size: int = CELL) -> np.ndarray:
    """The patches on one line of the sheet: (count, size, size, 3), located by the sheet's measures."""
    scale = max(1, -(-LEAST // size))
    with Image.open(sheet) as file:
        pixels = np.asarray(file)
    step, gap = size * scale, 2
    left = half * (LABEL + columns * (step + gap) + gap + BETWEEN) + LABEL + gap
    top = HEADING + line * (step + 2 * gap) + gap
    cells = [pixels[top : top + step, left + k * (step + gap) :][:, :step] for k in range(count)]
    large = np.stack(cells).reshape(count, size, scale, size, scale, 3)
    assert (large == large[:, :, :1, :, :1]).all()  # each pixel is a square of its own
    return large[:, :, 0, :, 0]


# where the transform and the view put column 0 and row 0 of the sample; -1: columns run backwards
PLACES = [
    ('center', (40, 32), {}, (4, 1), 0),  # (40 - 32) / 2
    ('flip', (40, 32), {}, (4 + 31, -1), 0),
    ('crop0', (45, 35), {'cropped_from': 35}, (5, 1), 0),  # (45 - 35) / 2, then the top left corner
    ('crop3', (45, 35), {'cropped_from': 35}, (5 + 3, 1), 3),
    ('crop7', (45, 35), {'cropped_from': 35}, (5 + 34, -1), 3),  # bottom left of the mirror image
]


@pytest.mark.parametrize(('variant', 'size', 'more', 'columns', 'top'), PLACES, ids=[place[0] for place in PLACES])
def test_patches_are_the_pixels_of_their_cells(
    home: Path, variant: str, size: tuple[int, int], more: dict[str, int], columns: tuple[int, int], top: int
) -> None:
    """Code k is cell k of every image, so that a shift by a pixel or by a cell is detected."""
    save_pictures(*size)
    write_tokens(np.broadcast_to(np.arange(16).reshape(4, 4), (COUNT, 4, 4)), 16, variant, **more)
    assert show('--codes', '8', '--patches', '4') == 0
    record = json.loads(Path('visualize_patches/patches.json').read_text())
    assert record['counts'] == [COUNT] * 16
    assert [*record['places']] == [str(code) for code in range(16)]  # ties: 0 to 7 on the left, 8 to 15 on the right
    start, step = columns
    for code in range(16):
        i, j = divmod(code, 4)
        found = patches_on(Path('visualize_patches/patches.png'), code // 8, code % 8, 4, 4).astype(int)
        rows, across = np.mgrid[:CELL, :CELL]
        assert (found[..., 0] == start + step * (j * CELL + across)).all(), code
        assert (found[..., 1] == top + i * CELL + rows).all(), code
        numbers = [int(place['id'].split('/')[-1].removesuffix('.png')) for place in record['places'][str(code)]]
        assert found[:, 0, 0, 2].tolist() == [10 * number for number in numbers]
        assert len(set(numbers)) == 4
        assert {(place['row'], place['column']) for place in record['places'][str(code)]} == {(i, j)}
    page = Path('visualize_patches/patches.html').read_text()
    assert page.count('<img') == 16 and 'code 3: 6 tokens, 6.25 %' in page


class Brightness(Tokenizer):
    """The code of a cell is the mean of its pixels, in steps of 16."""

    codebooks, can_tokenize, can_decode = (16,), True, False

    def spec(self, size: Size) -> CodecSpec:
        return CodecSpec(TokenSpec((size[0] // CELL, size[1] // CELL), self.codebooks), None)

    def tokenize(self, image: Tensor) -> Tensor:
        return codes_of(((image + 1) * 127.5).double())


def codes_of(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) from 0 to 255 -> (B, h, w)."""
    means = torch.nn.functional.avg_pool2d(pixels.double().mean(1), CELL)
    return (means.clamp(0, 254.9) / 16).long()


@pytest.mark.parametrize('variant', ['center', 'flip'])
def test_tokens_of_a_real_pass_and_what_is_shown_agree(home: Path, variant: str) -> None:
    """For any transform: each patch, tokenized alone, has its code again."""
    generator = np.random.default_rng(3)
    for number in range(20):
        place = home / f'pictures/validation/a/{number:02d}.png'
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (6, 7, 3)).astype(np.uint8))
        coarse.resize((50 + number, 70 - 2 * number)).save(place)
    from vq.assembly.compose import checked, compose
    from vq.registries import VQDatasetRegistry

    options = {'dataset': 'folder', 'data_root': 'pictures', 'image_size': 32, 'augmentation': 'none'}
    dataset = VQDatasetRegistry.build(checked(compose('digits/vq_ema.py', options, {}), 'validator')['dataset'], 'dataset')
    task = Task()
    task.tokenizer = Brightness()
    writer = TokenWriter(task, dataset, LoaderSettings(3), BaseStrategy(), shard_size=7, variants=(variant,))
    writer.bind(RunContext('test', home, 3407, ''))
    writer.run()
    assert show('--codes', '5', '--patches', '6') == 0
    record = json.loads(Path('visualize_patches/patches.json').read_text())
    shards = ShardSet('tokens')
    assert record['counts'] == np.bincount(shards.column('tokens')[:].ravel(), minlength=16).tolist()
    seen = set()
    for number, (code, places) in enumerate(record['places'].items()):
        found = patches_on(Path('visualize_patches/patches.png'), *divmod(number, 5), len(places), 6)
        again = codes_of(torch.from_numpy(found.copy()).permute(0, 3, 1, 2))
        assert again.flatten().tolist() == [int(code)] * len(places)
        assert len(places) == min(6, record['counts'][int(code)])
        seen.add(code)
    assert len(seen) >= 8


def test_context_lies_around_the_cell_and_leaves_it_alone() -> None:
    rows, columns = np.mgrid[:24, :40].astype(np.uint8)
    image = np.stack([columns, rows, np.zeros_like(rows)], 2)
    whole = cut(image, (1, 2), (8, 8), 5)
    assert whole.shape == (18, 18, 3)
    assert np.array_equal(whole[5:13, 5:13], image[8:16, 16:24])
    assert np.array_equal(whole[:4], image[3:7, 11:29]) and np.array_equal(whole[:, :4], image[3:21, 11:15])
    assert (whole[4, 4:14] == LINE).all() and (whole[13, 4:14] == LINE).all()
    assert (whole[4:14, 4] == LINE).all() and (whole[4:14, 13] == LINE).all()
    assert (whole == LINE).all(-1).sum() == 4 * 9
    corner = cut(image, (2, 4), (8, 8), 3)  # the last cell: nothing below and to the right of it
    assert np.array_equal(corner[3:11, 3:11], image[16:24, 32:40])
    assert len(np.unique(corner[12:].reshape(-1, 3), axis=0)) == 1
    assert np.array_equal(cut(image, (2, 4), (8, 8)), image[16:24, 32:40])
    assert np.array_equal(cut(image, (1, 1), (6, 10)), image[6:12, 10:20])  # cells need not be square


@pytest.mark.slow
def test_choices_do_not_depend_on_shards_and_every_place_is_as_likely(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    tokens = (generator.random((90, 2, 3, 5)) ** 2 * 12).astype(np.int64)  # 2 variants; low codes are common
    tokens[tokens == 7] = 6
    sets = []
    for size in (90, 13):
        producer = {'codebook_size': 13, 'token_shape': [3, 5], 'variants': ['center', 'flip']}
        writer = ShardWriter(tmp_path / str(size), 'tokens', 90, size, producer)
        for part in writer.pending(0, 1):
            writer.write(part, {'tokens': tokens[part.start : part.stop]}, [str(k) for k in range(part.start, part.stop)])
        writer.finish()
        sets.append(TokenView(ShardSet(tmp_path / str(size)), 1, None, 13))
    counts = sets[0].count()
    assert counts.tolist() == [int((tokens[:, 1] == code).sum()) for code in range(13)]
    most, least = choose_codes(counts, 4)
    by_use = sorted((code for code in range(13) if counts[code]), key=lambda code: (-counts[code], code))
    assert most == by_use[:4]
    assert least == sorted(by_use[4:], key=lambda code: (counts[code], code))[:4]
    assert 7 not in most + least and 12 not in most + least
    found = [choose_places(view, counts, [*most, *least], 9, 5) for view in sets]
    assert found[0] == found[1]
    for code, places in found[0].items():
        assert len(set(places)) == len(places) == min(9, counts[code])
        assert all(tokens[row, 1, i, j] == code for row, i, j in places)
    drawn = np.zeros(90)  # by the row: over many seeds all rows are drawn in proportion to their tokens of this code
    for seed in range(400):
        for row, _, _ in choose_places(sets[1], counts, [most[0]], 9, seed)[most[0]]:
            drawn[row] += 1
    expected = 400 * 9 * (tokens[:, 1] == most[0]).sum((1, 2)) / counts[most[0]]
    assert (drawn[expected == 0] == 0).all()
    assert (np.abs(drawn - expected) < 5 * np.sqrt(expected) + 1).all()


def test_the_same_command_gives_the_same_bytes(home: Path) -> None:
    save_pictures(40, 32)
    write_tokens(np.random.default_rng(0).integers(0, 9, (COUNT, 4, 4)), 16)
    names = ('patches.png', 'patches.html', 'patches.json')
    assert show('--codes', '3') == 0 and show('--codes', '3', '--output', 'again') == 0
    for name in names:
        assert Path('visualize_patches', name).read_bytes() == Path('again', name).read_bytes()
    assert show('--codes', '3', '--output', 'other', '--seed', '1', '--patches', '2') == 0
    assert Path('other/patches.json').read_bytes() != Path('again/patches.json').read_bytes()


def test_one_of_several_codebooks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pictures(40, 32)
    tokens = np.stack([np.zeros((COUNT, 2, 2), int), np.broadcast_to(np.arange(4).reshape(2, 2), (COUNT, 2, 2))], -1)
    write_tokens(tokens, 16)
    assert show('--codebook', '1', '--codes', '2', '--patches', '3') == 0
    record = json.loads(Path('visualize_patches/patches_codebook1.json').read_text())
    assert record['counts'] == [COUNT] * 4 + [0] * 12
    found = patches_on(Path('visualize_patches/patches_codebook1.png'), 1, 1, 3, 3, 16)  # code 3: the last cell
    assert (found[:, 0, 0, :2] == [4 + 16, 16]).all()
    assert show('--codebook', '2') == 2
    assert 'each cell has 2 codes' in capsys.readouterr().err


class TestWhatDoesNotBelongTogether:
    GRID = np.zeros((COUNT, 4, 4), int)

    def said(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        capsys.readouterr()
        assert show(*arguments) == 2
        assert not Path('visualize_patches').exists()
        return capsys.readouterr().err

    def test_other_images(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        save_pictures(40, 32)
        write_tokens(self.GRID, 16)
        Image.new('RGB', (40, 32)).save('pictures/validation/a/7.png')
        assert 'the fingerprint of the dataset is' in self.said(capsys)
        assert visualize_patches.main(['digits/vq_ema.py', 'tokens']) == 2
        assert 'the dataset is pictures there, digits here' in capsys.readouterr().err

    def test_another_split(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        save_pictures(40, 32)
        write_tokens(self.GRID, 16)
        Path('pictures/train/a').mkdir(parents=True)
        Image.new('RGB', (40, 32)).save('pictures/train/a/0.png')
        error = self.said(capsys, '--train')
        assert 'the split is validation there, train here' in error and 'Leave out --train' in error

    def test_ids_where_there_is_no_fingerprint(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        save_pictures(40, 32)
        write_tokens(self.GRID, 16, dataset='', split='', dataset_fingerprint='')
        Path('pictures/validation/a/2.png').rename('pictures/validation/a/9.png')
        error = self.said(capsys)
        assert '1 of 6 ids of tokens are not in pictures (validation)' in error and 'a/2.png' in error
        Path('pictures/validation/a/9.png').rename('pictures/validation/a/2.png')
        assert show() == 0

    def test_another_size(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        save_pictures(40, 32)
        write_tokens(self.GRID, 16)
        assert '--config-options image_size:32' in self.said(capsys, '--config-options', 'image_size:16')

    def test_tokens_that_are_no_grid(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        save_pictures(40, 32)
        write_tokens(np.zeros((COUNT, 30), int), 16)
        assert 'are not on a grid' in self.said(capsys)

    def test_cells_that_do_not_fit(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        save_pictures(40, 32)
        write_tokens(np.zeros((COUNT, 5, 5), int), 16)
        assert 'do not divide into 5 x 5 cells' in self.said(capsys)
        assert "no variant 'flip'" in self.said(capsys, '--variant', 'flip')
