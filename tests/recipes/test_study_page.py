"""docs/vqvae_study.md: what it names exists, its tables are those of the configs, and ``vq test`` has the study's figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.runners.support import commands_here
from tests.shipped import FOLDER
from vq.assembly.compose import checked, compose
from vq.cli.static_options import options_of

PAGE = (Path(__file__).parents[2] / 'docs/vqvae_study.md').read_text()
ROW = re.compile(r'^\| (\w+) \| `(\w+\.py)` \| (.*) \|$', re.MULTILINE)
RECIPES = ('vqgan_1024_adaptive_r1', 'vqgan_1024_fixed', 'vqgan_1024_gumbel', 'vqgan_1024_ema', 'vqgan_1024_entropy')


def test_the_figures_are_quoted_in_the_configs_too() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) == 5 + 6 + 4
    for run, file, figures in rows:
        header = ' '.join((FOLDER / 'vqvae_gan_study' / file).read_text().split()).replace(',', '')
        usage, perplexity, l2, ssim, psnr, fid, hours, parameters = figures.split(' | ')
        for words in (
            f'row {run} of its tables',
            f'{usage} of the codes in use',
            f'perplexity {perplexity}',
            f'MSE {l2} (of 0 to 1)',
            f'SSIM {ssim} PSNR {psnr} dB rFID {fid}',
            f'{hours} hours of one A100 per epoch',
            f'{parameters} trainable',
        ):
            assert words in header, (file, words)
    names = {path.name for path in (FOLDER / 'vqvae_gan_study').glob('vq*.py')}
    assert names == set(re.findall(r'`(vq(?:gan|vae)_\w+\.py)`', PAGE))


def test_paths_and_options_of_the_page_exist() -> None:
    paths = sorted({path.partition('=')[0] for path in re.findall(r'`(\.(?:trainer|validator)\.[\w.=-]+)`', PAGE)})
    assert len(paths) > 30
    configs = [compose(f'vqvae_gan_study/{name}.py', {}, {}, tiny=False) for name in RECIPES]
    for path in paths:
        if path.endswith(('.eps', '.warmup', '.length', '.commitment_weight', '.target')) and 'update' not in path:
            value = 'soft' if path.endswith('.target') else 1
            checked(compose('vqvae_gan_study/vqgan_1024_entropy.py', {}, {path: value}, tiny=False), 'trainer')
            continue
        assert any(reaches(config, path) for config in configs), path
    known = options_of('vqvae_gan_study/vqgan_1024_adaptive_r1.py')
    options = {name for name in re.findall(r'[` ](\w+)=[^` ]', PAGE) if not name.startswith('_')}
    assert len(options) > 12
    assert options <= known.keys() | {'num_embeddings', 'DRY_RUN'}, options - known.keys()


def reaches(config: object, path: str) -> bool:
    found = config
    for name in path.split('.')[1:]:
        if not hasattr(found, 'keys') or name not in found:
            return False
        found = found[name]
    return True


@pytest.mark.slow
def test_both_commands_measure_what_the_study_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vq.cli.test import main as test
    from vq.cli.train import main as train

    monkeypatch.chdir(tmp_path)
    with commands_here():
        assert train(['standard', 'vqvae_gan_study/vqvae_1024_standard.py', '--seed', '1234']) == 0
        assert test(['standard', '.validator.dataset.split=test', '.validator.dataloader.batch_size=64']) == 0
    found = json.loads(Path('work_dirs/dry_run/standard_test/results.json').read_text())
    assert found['dataset']['split'] == 'test' and found['results']['samples'] == 180
    named = set(re.findall(r'^\| [\w ]+ \| `(\w+)` \| ', PAGE, re.MULTILINE))
    assert named == {'mse', 'psnr', 'ssim', 'fid', 'perplexity', 'codebook_usage'}
    full = compose('vqvae_gan_study/vqvae_1024_standard.py', {}, {}, tiny=False).validator.metrics
    assert 'fid' in full.features.figures and full.features.reference is None
    assert named - {'fid'} <= {name for name, value in found['results'].items() if isinstance(value, float)}
