"""Every command line of the reference toolkit's own document runs, as a dry run, in the order of the document.

The rows, and what may differ from the printed lines, are in ``document_003.py``. Lines are run by bash. A training is run a
second time, with what stands in its brackets, after the folder of the first one is deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.end_to_end import document_003
from tests.end_to_end.document_003 import MIRROR, ROWS, Row
from tests.io.serving import FileServer, serving
from tests.published import SHARED
from tests.runners.support import commands_here
from tests.shipped import FEW_DIGITS
from tests.snippets import ROOT, environment
from tests.warm import programs
from vq.io.published import catalog

DOCUMENT = SHARED / 'reference/systems/003.txt'
FULL = 'fit the full form'  # said of weights that a dry run compares and does not load
IN_ITS_PLACE = 'is taken in its place'
KEPT = 40_000  # iterations between the checkpoints that the loops of the document keep

LEAVES = {  # what a command leaves, by its line: paths below the folder, * for any
    r'vq\.train (\S+)': ('work_dirs/dry_run/{0}/checkpoints/iter_8/COMPLETE', 'work_dirs/dry_run/{0}/*.json'),
    r'vq\.val (\S+)': ('work_dirs/dry_run/{0}/val/iter_8/results.json',),
    r'vq\.test (\S+)': ('work_dirs/dry_run/{0}_test/results.json', 'work_dirs/dry_run/{0}_test/tokens/manifest.json'),
    r'image_tokenization\.tokenize (\S+) .* --train': ('work_dirs/dry_run/{0}_tokenize_train/tokens/manifest.json',),
    r'image_tokenization\.tokenize (\S+)': ('work_dirs/dry_run/{0}_tokenize/tokens/manifest.json',),
    r'vq\.fid imagenet --train': ('work_dirs/dry_run/fid/imagenet_train/imagenet_train.npz',),
    r'vq\.fid imagenet': ('work_dirs/dry_run/fid/imagenet/imagenet_validation.npz',),
    r'vq\.inference \S+ \S+/(\S+)\.JPEG': ('work_dirs/inference/{0}_tokens.npy', 'work_dirs/inference/{0}_pair.png'),
    r'tools/fidelity\.py': ('work_dirs/images/fidelity.json',),
    r'tools/fid\.py': ('work_dirs/images/fid.json',),
    r'tools/llamagen\.py llamagen/(\S+)': ('work_dirs/dry_run/llamagen/{0}/llamagen_tokens/manifest.json',),
    r'tools/visualize_patches\.py \S+ (\S+)/tokens': ('{0}/visualize_patches/patches.html',),
    r'tools/convert_checkpoints\.py \S+ (\S+) .* --suffix (\S+)': ('{0}{1}',),
    r'tools/convert_checkpoints\.py \S+ (\S+)': ('{0}.converted',),
    r'mkdir -p (\S+)': ('{0}',),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder in which the commands are typed, as in a checkout, and the programs to run first."""

    folder: Path
    programs: Path
    server: FileServer

    def run(self, line: str, settings: Mapping[str, str]) -> str:
        """What the line says. It has to end with 0 and to leave its files."""
        if MIRROR in line:
            return self._fetch(line.replace(MIRROR, self.server.address))
        told = environment(self.programs) | {'DRY_RUN': 'True', 'FEW_DIGITS_OF_TESTS': json.dumps(FEW_DIGITS), **settings}
        done = subprocess.run(['bash', '-c', line], cwd=self.folder, env=told, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f'exit code {done.returncode}\n{said[-3000:]}'
        assert FULL not in said, said[-3000:]
        assert ('/iter_7/' not in line and '/iter_2/' not in line) or IN_ITS_PLACE in said, said[-3000:]
        for path in leaves(line, settings):
            assert [*self.folder.glob(path)], f'it left no {path}\n{said[-3000:]}'
        return said

    def _fetch(self, line: str) -> str:
        """In this process, where the catalog has no digests: those of the small files are not the published ones."""
        _, tool, *words = shlex.split(line)
        with commands_here(), contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalog, 'CATALOG', tuple(map(without_digests, catalog.CATALOG)))
            patch.setattr('sys.argv', [tool, *words])
            with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
                runpy.run_path(tool, run_name='__main__')
        assert not ended.value.code, said.getvalue()
        for remote in catalog.find(words[0]).files:
            assert (self.folder / 'pretrained' / remote.path).read_bytes() == self.server.files[address(remote)]
        return said.getvalue()


def leaves(line: str, settings: Mapping[str, str]) -> list[str]:
    """The files that a line leaves. The first pattern that is found counts."""
    text = ' '.join(line.replace('\\\n', ' ').split())
    for name, value in settings.items():
        text = text.replace(f'${{{name}}}', value)
    for pattern, paths in LEAVES.items():
        if match := re.search(pattern, text):
            return [path.format(*match.groups()) for path in paths]
    assert text.startswith('for '), text
    return []


# instead of published files


def without_digests(entry: catalog.Published) -> catalog.Published:
    files = tuple(dataclasses.replace(remote, digest=None, size=None) for remote in entry.files)
    return dataclasses.replace(entry, files=files)


def address(remote: catalog.RemoteFile) -> str:
    parts = urlsplit(remote.url)
    return f'{parts.path}?{parts.query}' if parts.query else parts.path


def small_beit2() -> bytes:
    """A file of BEiT v2's VQ-KD: networks of one block and 64 channels, 16 codes of 8 channels, images of 32 pixels."""
    shapes: dict[str, tuple[int, ...]] = {'quantize.embedding.weight': (16, 8), 'quantize.cluster_size': (16,)}
    for side, task, channels, patch, out in (('encoder', 'encode', 3, 16, 8), ('decoder', 'decode', 8, 1, 24)):
        shapes |= {f'{side}.cls_token': (1, 1, 64), f'{side}.pos_embed': (1, 5, 64)}
        layers = {f'{side}.patch_embed.proj': (64, channels, patch, patch), f'{task}_task_layer.2': (out, 64)}
        layers |= {f'{task}_task_layer.0': (64, 64), f'{side}.fc_norm': (64,)}
        block = f'{side}.blocks.0'
        shapes |= {f'{block}.attn.q_bias': (64,), f'{block}.attn.v_bias': (64,), f'{block}.attn.qkv.weight': (192, 64)}
        layers |= {f'{block}.norm1': (64,), f'{block}.norm2': (64,), f'{block}.attn.proj': (64, 64)}
        layers |= {f'{block}.mlp.fc1': (256, 64), f'{block}.mlp.fc2': (64, 256)}
        for layer, shape in layers.items():
            shapes |= {f'{layer}.weight': shape, f'{layer}.bias': shape[:1]}
    file, generator = io.BytesIO(), torch.Generator().manual_seed(0)
    torch.save({'model': {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}}, file)
    return file.getvalue()


# what no command of the document makes


def photograph(folder: Path) -> None:
    file = folder / 'data/imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG'
    file.parent.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize((500, 375)).save(file, format='JPEG')


def pictures(folder: Path) -> None:
    place = folder / 'work_dirs/images/pictures'
    if not place.exists():
        place.mkdir(parents=True)
        for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)):
            Image.fromarray(pixels).save(place / f'{number:02}.png')


def old_weights(run: str) -> Callable[[Path], None]:
    """``iter_250000/model.pth`` of a run of the authors: here the weights of the dry run, as a file of torch."""

    def make(folder: Path) -> None:
        file = folder / 'work_dirs' / run / 'checkpoints/iter_250000/model.pth'
        file.parent.mkdir(parents=True)
        weights = folder / 'work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp/checkpoints/iter_8/model.safetensors'
        torch.save(load_file(weights), file)

    return make


def tokens(folder: Path) -> None:
    """The document shows tokens in ``work_dirs``; those of dry runs are elsewhere."""
    for name in ('vqkd_clip_tokenize_tokenize', 'vqgan_tokenize_tokenize'):
        place = folder / 'work_dirs' / name
        if not place.exists():
            shutil.copytree(folder / 'work_dirs/dry_run' / name, place)


def checkpoints(folder: Path) -> None:
    """Those of the four runs whose checkpoints the document thins out."""
    for place in thinned(folder):
        if not place.exists():
            for step in range(10_000, 120_001, 10_000):
                (place / f'iter_{step}').mkdir(parents=True)


def thinned(folder: Path) -> list[Path]:
    return [folder / match[1] for row in ROWS if (match := re.match(r'for file in (\S+)/iter_\*', row.printed))]


MAKERS: dict[str, Callable[[Path], None]] = {
    'jpeg': photograph,
    'pictures': pictures,
    'weights of vqkd': old_weights('vqkd_8192_imagenet_ddp_autocast'),
    'weights of openclip': old_weights('models/vqkd_openclip_bigG_14_8192_imagenet_ddp_autocast'),
    'tokens': tokens,
    'checkpoints': checkpoints,
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(ROOT / name)
    beit2 = small_beit2()
    with serving() as server:
        for entry in catalog.CATALOG:
            for remote in entry.files:
                server.files[address(remote)] = beit2 if remote.path.startswith('beitv2/') else remote.path.encode()
        yield Place(tmp_path, programs(), server)


def problem_of(row: Row, place: Place) -> str:
    """Run the lines of a row. Returns what went wrong."""
    line = row.printed
    try:
        for maker in row.inputs:
            MAKERS[maker](place.folder)
        for line in row.lines:
            for settings in row.settings:
                if match := re.search(r'-m vq\.train\s(?:\\\n)?\s*(\S+)', line):
                    shutil.rmtree(place.folder / 'work_dirs/dry_run' / match[1], ignore_errors=True)
                place.run(line, settings)
    except (AssertionError, OSError) as error:
        return f'{line}\n{type(error).__name__}: {error}'
    return ''


@pytest.mark.slow
def test_every_line_runs(place: Place) -> None:
    failed = [problem for row in ROWS if (problem := problem_of(row, place))]
    assert not failed, '\n\n'.join(failed)
    for left in thinned(place.folder):
        assert {path.name for path in left.iterdir()} == {f'iter_{number * KEPT}' for number in (1, 2, 3)}


def test_every_printed_line_has_a_row() -> None:
    if not DOCUMENT.exists():
        pytest.skip(f'{DOCUMENT.name} is not in {DOCUMENT.parent}')
    document = DOCUMENT.read_text(encoding='utf-8')
    printed = document_003.commands(document_003.blocks(document))
    assert [row.printed for row in ROWS] == printed


def test_lines_differ_only_for_a_reason() -> None:
    for row in ROWS:
        assert row.reasons or row.lines == (row.printed,)
        assert row.lines or {*row.reasons} <= {document_003.INSTALLS}
        assert ('${' in row.printed) == (document_003.FILLED in row.reasons)
        assert ('[--' in row.printed) == (document_003.OPTIONAL in row.reasons) or not row.lines


def test_the_page_has_these_rows() -> None:
    """If this fails: python -m tests.end_to_end.document_003"""
    page = document_003.PAGE.read_text(encoding='utf-8')
    assert page == document_003.written(page)
