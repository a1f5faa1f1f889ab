"""Every command line of mar_ebwm's document has one of ours beside it, which runs in its tiny form, in their order."""

from __future__ import annotations

import dataclasses
import importlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.end_to_end import document_004
from tests.end_to_end.document_003 import commands
from tests.end_to_end.document_004 import ROWS, words_of
from tests.end_to_end.test_document_003 import FULL, address, without_digests
from tests.io.serving import serving
from tests.published import SHARED
from tests.runners.support import commands_here
from tests.snippets import ROOT
from tests.test_two_stage_page import Row as PageRow
from tests.test_two_stage_page import read_command
from vq.assembly.compose import checked, compose
from vq.cli.commands import COMMANDS
from vq.cli.convert import convert_file
from vq.io.published import catalog, mar, mar_kl16
from vq.launch.main import OPTIONS
from vq.registries import VQModelRegistry, VQRunnerRegistry

DOCUMENT = SHARED / 'reference/systems/004.txt'
SBATCH = sorted((ROOT / 'docs/slurm').glob('*.sbatch'))
LEAVES = {  # what a command leaves
    'fetch': ('pretrained/mar/kl16.ckpt.converted', 'pretrained/mar/mar_huge.pth.converted'),
    'data': ('cached/train/latents/manifest.json', 'cached/train/ptshard/shard_00000.pt'),
    'train': ('work_dirs/energy_base/checkpoints/iter_*/COMPLETE',),
    'val': ('work_dirs/dry_run/{name}/val/given/results.json',),
    'sample': ('work_dirs/dry_run/mar_base_sample/samples/*.png',),
}


def without_launcher(words: list[str]) -> list[str]:
    """What ``vq`` is told, without the options of its launcher: one process runs it."""
    assert words[0] == 'vq', words
    words = words[1:]
    while words[0].startswith('--'):
        assert words[0].removeprefix('--') in OPTIONS, words
        words = words[2:]
    return words


def of_small_files(entry: catalog.Published) -> catalog.Published:
    """Without digests; and the number of heads, which a published width tells."""
    known = {'heads': 2} if entry.kind == 'mar' else entry.options
    return dataclasses.replace(without_digests(entry), options=known)


def kl16() -> bytes:
    """A file of KL-16 with the shapes of the tiny form, whose weights are random."""
    config = compose('two_stage/klvae_f16_imagenet_ddp.py', {}, {}, tiny=True)
    tokenizer = VQModelRegistry.build(config['trainer']['model']['tokenizer'], 'tokenizer')
    return saved({'model': mar_kl16.restore({f'tokenizer.{key}': value for key, value in tokenizer.state_dict().items()})})


def transformer(folder: Path, size: str) -> bytes:
    """A file of MAR on the latents of that tokenizer, whose converted file is in ``folder``."""
    config = compose(f'mar/{size}_imagenet_ddp.py', dict(tokenizer_run=str(folder / 'kl16.ckpt.converted')), {}, tiny=True)
    model: Any = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer').model
    parts = [(name, getattr(model, name)) for name in ('generator', 'conditioner')]
    ours = {f'{name}.{key}': value for name, part in parts for key, value in part.state_dict().items()}
    return saved({'model': {}, 'model_ema': mar.restore(ours), 'epoch': 3})


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An empty folder, and a server with small files in place of the published ones."""
    made, file = tmp_path / 'made', kl16()
    made.mkdir()
    (made / 'kl16.ckpt').write_bytes(file)
    with commands_here(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        entries = {entry.name: entry for entry in catalog.CATALOG}
        patch.setattr(catalog, 'CATALOG', tuple(map(of_small_files, catalog.CATALOG)))
        convert_file('mar_kl16', made / 'kl16.ckpt', {'latent_scale': 0.2325}, made / 'kl16.ckpt.converted')
        with serving() as server:
            server.files[address(entries['mar-kl-16'].files[0])] = file
            for size in ('base', 'large', 'huge'):
                server.files[address(entries[f'mar-{size}'].files[0])] = transformer(made, size)
            yield tmp_path, server.address


@pytest.mark.slow
def test_every_command_runs_in_its_tiny_form(place: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, mirror = place
    for row in ROWS:
        if row.not_run:
            continue
        for words in words_of(row):
            if words[0] == 'python':
                assert words[1] == 'tools/prepare_checkpoints.py'
                words = ['fetch', *words[2:], '--mirror', mirror]
            else:
                words = without_launcher(words)
            body = importlib.import_module(COMMANDS[words[0]].body)
            assert body.main(words[1:]) == 0, words
            for path in LEAVES[words[0]]:
                assert [*folder.glob(path.format(name=words[1]))], f'{words} left no {path}'
    said = capsys.readouterr()
    assert FULL not in said.out + said.err, 'weights were compared and not loaded'


def test_every_printed_line_has_a_row() -> None:
    if not DOCUMENT.exists():
        pytest.skip(f'{DOCUMENT.name} is not in {DOCUMENT.parent}')
    document = DOCUMENT.read_text(encoding='utf-8')
    assert [line for row in ROWS for line in row.printed] == document_004.printed(document)
    assert all(row.ours for row in ROWS) and {row.not_run for row in ROWS} == {'', 'it installs packages'}


def test_the_page_has_these_rows() -> None:
    """If this fails: python -m tests.end_to_end.document_004"""
    page = document_004.PAGE.read_text(encoding='utf-8')
    assert page == document_004.written(page)


@pytest.mark.parametrize('script', SBATCH, ids=lambda path: path.stem)
def test_scripts_of_slurm(script: Path) -> None:
    """bash reads them; what srun starts is a command of the page, with options that its config has."""
    subprocess.run(['bash', '-n', script], check=True)
    text = script.read_text()
    text = re.sub(r'\$\{(\w+):-([^}]*)\}', r'\2', text)
    settings = dict(re.findall(r'^(\w+)=(\S+)$', text, re.MULTILINE))
    text = re.sub(r'"\$\{(\w+)\}"', lambda match: settings[match[1]], text)
    (line,) = [line for line in commands(text) if line.startswith('srun ')]
    words = shlex.split(line.replace('\\\n', ' '))
    words = [word for word in words[words.index('auto_torchrun') + 1 :] if word != 'tokenizer_run::kl16']  # it is not here
    module = words.index('-m')
    asked = dict(re.findall(r'^#SBATCH --([\w-]+)=(\S+)$', text, re.MULTILINE))
    assert asked['cpus-per-task'] in line and asked['ntasks-per-node'] == '1', 'one launcher on each node'
    read_command(
        PageRow(script.stem, '', ''), ['vq', *words[:module], words[module + 1].removeprefix('vq.'), *words[module + 2 :]]
    )


def test_there_are_scripts_for_both_jobs() -> None:
    assert [script.stem for script in SBATCH] == ['cache_latents', 'train_energy']
