"""CONTRIBUTING.md works as written: its files are written to an empty folder, and its commands train with them."""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.runners.support import own_parts
from tests.snippets import Reader, inside, read_snippets
from vq.cli import train

SNIPPETS = read_snippets('CONTRIBUTING.md')
COMMAND = 'DRY_RUN=True auto_torchrun -m vq.train '
COMMANDS = [snippet.text.strip() for snippet in SNIPPETS if snippet.language == 'bash']


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with every file of the page. Modules and registered parts are removed afterwards."""
    reader = Reader(tmp_path)
    for snippet in SNIPPETS:
        if snippet.file is not None:
            reader.run(snippet)
    monkeypatch.setenv('DRY_RUN', 'True')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks so small gain nothing from more
    with own_parts(tmp_path), inside(tmp_path):
        yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.removeprefix(COMMAND).split()[0])
def test_each_part_trains(command: str, folder: Path) -> None:
    assert command.startswith(COMMAND), f'the page shows another command than this test can run: {command}'
    arguments = shlex.split(command.removeprefix(COMMAND))
    assert train.main(arguments) == 0
    lines = (folder / 'work_dirs' / 'dry_run' / arguments[0] / 'log.jsonl').read_text().splitlines()
    trained = [record for record in map(json.loads, lines) if record['kind'] == 'train']
    assert trained[-1]['step'] == 8
    assert all(abs(record['total']) < 1e3 for record in trained)


def test_the_page_shows_each_kind_of_part() -> None:
    parts = {'Quantizer', 'Loss', 'ImageDataset', 'Encoder', 'Decoder', 'Callback[TrainerLike]', 'Tokenizer'}
    shown = {base for snippet in SNIPPETS for base in parts if f'({base}):' in snippet.text}
    assert shown == parts
    assert any('@VQTransformRegistry' in snippet.text for snippet in SNIPPETS)


def test_the_decoder_of_the_page_can_be_trained_adversarially(folder: Path) -> None:
    decoder = importlib.import_module('patches').PatchDecoder(in_channels=5, width=6, patch=4)
    features = decoder.features(torch.randn(2, 5, 3, 2))
    image = decoder.project(features)
    assert image.shape == (2, 3, 12, 8)
    gradients = torch.randn(2, *image.shape)
    found = decoder.last_layer_gradients(features.detach(), image.detach(), gradients)
    for index in range(2):
        (expected,) = torch.autograd.grad(image, decoder.head.weight, gradients[index], retain_graph=True)
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-5)


def test_tests_of_the_page_pass(folder: Path) -> None:
    module = importlib.import_module('test_binary')
    tests = [item for name, item in inspect.getmembers(module, inspect.isfunction) if name.startswith('test_')]
    assert tests
    for test in tests:
        test()
