"""Sizes that are overridden reach everything that depends on them, and a second value is refused before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.shipped import FOLDER, composed, entries
from vq.assembly.compose import checked, compose
from vq.cli.train import main
from vq.core.meta import on_meta
from vq.registries import VQRunnerRegistry

SIZE = 57
METRIC = '.validator.metrics.codebook.codebook_size'


def place_of(config: Any) -> str | None:
    """The path of the tokenizer's quantizer, if it has a codebook_size."""
    path, part = '.trainer.model', config.trainer.model
    while part.get('tokenizer') is not None:  # a model of pixels has none
        path, part = f'{path}.tokenizer', part['tokenizer']
    return f'{path}.quantizer' if 'codebook_size' in (part.get('quantizer') or {}) else None


def sizes(entry: str, options: dict[str, Any], overrides: dict[str, Any], tiny: bool = True) -> tuple[list[Any], Any]:
    """The codebook_size of all metrics of codebooks, and the model of the validator."""
    config = compose(str(FOLDER / entry), options, overrides, tiny=tiny)
    with on_meta():
        validator = VQRunnerRegistry.build(checked(config, 'validator'), 'validator')
    return [part.codebook_size for part in validator.metrics.values() if hasattr(part, 'codebook_size')], validator.model


@pytest.mark.slow
def test_an_overridden_quantizer_reaches_metrics_and_generators_of_every_config() -> None:
    seen = set()
    for entry in entries():
        place = place_of(composed(entry))
        if place is None:
            continue
        found, model = sizes(entry, {}, {f'{place}.codebook_size': SIZE})
        learns_latents = composed(entry).trainer.model.type == 'DiffusionTask'  # which measures no codes
        assert set(found) == (set() if learns_latents else {SIZE}), entry
        assert not learns_latents or model.tokenizer.tokenizer.codebook_size == SIZE, entry
        generator = getattr(model, 'generator', None)
        if generator is not None:
            assert generator.tokens.codebooks == (SIZE,), entry
            seen.add(type(generator).__name__)
    assert seen == {'Autoregressive', 'MaskedGenerator', 'MAGEGenerator'}


@pytest.mark.parametrize('entry', ['digits/vq_ema.py', 'vqgan/8192_imagenet_ddp.py', 'vqvae_gan_study/vqvae_4096_ema.py'])
def test_the_option_codebook_size_reaches_metrics(entry: str) -> None:
    found, model = sizes(entry, {'codebook_size': SIZE}, {}, tiny=False)
    assert found == [SIZE] and model.tokenizer.codebook_size == SIZE


def test_levels_and_bits_reach_metrics() -> None:
    assert sizes('digits/fsq.py', {}, {'.trainer.model.tokenizer.quantizer.levels': [3, 4, 5]})[0] == [60]
    assert sizes('digits/lfq.py', {}, {'.trainer.model.tokenizer.quantizer.bits': 6})[0] == [64]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a tiny training that must be refused before its first step -> what it said."""
    monkeypatch.setenv('DRY_RUN', 'True')

    def run(entry: str, *overrides: str) -> str:
        code = main(['run', str(FOLDER / entry), '--work-dir', str(tmp_path), '--override', *overrides])
        error = capsys.readouterr().err
        assert code == 2, error
        log = tmp_path / 'run/log.jsonl'
        assert not (tmp_path / 'run/checkpoints').exists() and (not log.exists() or '"step"' not in log.read_text())
        return error

    return run


@pytest.mark.parametrize('evaluate', [(), ('.trainer.callbacks.evaluate:None',)])
@pytest.mark.parametrize('entry', ['digits/vq_ema.py', 'digits/maskgit.py'])
def test_another_codebook_size_of_a_metric_is_refused(refused: Callable[..., str], entry: str, evaluate: Any) -> None:
    error = refused(entry, f'{METRIC}:99', *evaluate)
    assert 'validator.metrics.codebook.codebook_size is 99 in the config, and validator.model has 256' in error
    assert 'Leave the setting out of the config: it is filled in.' in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ('entry', 'override', 'words'),
    [
        ('ar', '.trainer.model.generator.codebooks:(99,)', 'codebooks is (99,) in the config'),
        ('ar', '.trainer.model.generator.network.vocabulary:99', 'network.vocabulary is 99 in the config'),
        ('maskgit', '.trainer.model.generator.cells:(3,3)', 'cells is (3, 3) in the config'),
        ('ar', '.trainer.model.generator.classes:7', 'has 10 classes and the model 7'),
        ('probe', '.trainer.model.classes:7', 'has 10 classes and the model 7'),
        ('ar', '.trainer.model.tokenizer.image_size:64', 'tokens of the shape (4, 4), and the generator learns (8, 8)'),
        ('ar', '.validator.dataset.image_size:64', 'tokens of the shape (8, 8), and the generator learns (4, 4)'),
        ('vq_ema', '.trainer.dataset.image_size:36', 'do not divide into cells of 8 pixels'),
    ],
)
def test_other_sizes_of_generators_classes_and_images_are_refused(
    refused: Callable[..., str], entry: str, override: str, words: str
) -> None:
    assert words in refused(f'digits/{entry}.py', override)
