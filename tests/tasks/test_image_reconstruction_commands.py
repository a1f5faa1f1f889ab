"""Decoders for frozen tokenizers: composed configs, every command, resume, two ranks, the wrong tokenizer."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.ranks import GlooPool
from tests.runners.support import assert_same, commands_here, everything, logged, said_by
from tests.shipped import types_in
from vq.assembly.compose import checked, compose, runner_config
from vq.assembly.frozen_weights import take_tokenizer
from vq.cli import inference, tokenize, train, val
from vq.cli import test as test_command
from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.core.random import derive_seed
from vq.io.shards import ShardSet
from vq.loading import load
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext

# configs


def composed(name: str = 'decoder/vqgan', **options: Any) -> PyConfig:
    config = compose(f'configs/{name}.py', options, {}, tiny=False)
    for which in ('trainer', 'validator'):
        checked(config, which)
    return config


@pytest.mark.parametrize(('name', 'loss', 'depth'), [('decoder/vqgan', 'l1', 2), ('decoder/llamagen', 'l2', 3)])
def test_the_side_that_learns_is_that_of_the_ir_config(name: str, loss: str, depth: int) -> None:
    config = composed(name, it_config='configs/vqgan/1024_imagenet_ddp.py')
    model = config.trainer.model
    assert model.type == 'AdversarialReconstruction' and [*model.losses] == [loss, 'lpips']
    assert model.discriminator.depth == depth
    assert model.tokenizer.frozen.tokenizer.quantizer.codebook_size == 1024
    assert (config.validator.metrics.codebook, config.validator.metrics.window) == (
        {'type': 'CodebookMetric'},
        {'type': 'WindowedCodebookMetric'},
    )  # their sizes follow from the model
    assert model.tokenizer.decoder.type == 'ConvDecoder' and model.tokenizer.decoder.in_channels == 256
    assert 'CodebookAlarmCallback' not in {*types_in(config)}
    found = runner_config(config, 'validator')
    assert found.model.type == 'ImageReconstruction' and {*found.model} == {'type', 'tokenizer', 'losses'}


@pytest.mark.parametrize(('choice', 'size'), [('vqkd', (768, 12, 12)), ('vqkd_large', (1280, 32, 16))])
def test_pixel_transformers(choice: str, size: tuple[int, int, int]) -> None:
    config = composed(decoder=choice, image_size=384)
    decoder = config.trainer.model.tokenizer.decoder
    assert (decoder.dim, decoder.depth, decoder.heads) == size and (decoder.patch, decoder.grid) == (16, 24)
    with torch.device('meta'):
        trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    whole = trainer.model.tokenizer
    assert whole.decoder.in_channels == 256 and whole.pre_decode is None and whole.token_spec((384, 384)).shape == (24, 24)
    assert trainer.model.tokenizer.frozen.tokenizer.decoder is None


def test_options_reach_the_side_they_mean() -> None:
    """``width``, ``multipliers`` and the image size belong to the decoder, ``num_embeddings`` to the tokenizer."""
    f8 = dict(it_config='configs/llamagen/vqgan_f8_256_imagenet_ddp.py', multipliers=(1, 2, 2, 4), width=64)
    config = composed(image_size=512, num_embeddings=300, **f8)
    tokenizer = config.trainer.model.tokenizer
    assert tokenizer.decoder.width == 64 and tokenizer.frozen.tokenizer.encoder.width == 128
    assert tokenizer.decoder.multipliers == tokenizer.frozen.tokenizer.encoder.multipliers == (1, 2, 2, 4)
    assert tokenizer.frozen.tokenizer.quantizer.codebook_size == 300
    assert tokenizer.frozen.image_size == 512 and config.trainer.dataset.transform.image_size == 512
    with torch.device('meta'), pytest.raises(ConfigError, match='stands for 8 x 8 pixels, and the decoder makes 16 x 16'):
        VQRunnerRegistry.build(checked(composed(it_config=f8['it_config']), 'trainer'), 'trainer')


def test_an_ir_config_loses_what_belongs_to_its_quantizer() -> None:
    gumbel = 'configs/vqgan/gumbel_f8_8192_imagenet_ddp.py'
    found = composed(ir_config=gumbel, it_config='configs/llamagen/vqgan_f8_256_imagenet_ddp.py')
    assert 'AnnealCallback' in {*types_in(compose(gumbel, {}, {}, tiny=False))}
    assert not {'AnnealCallback', 'GumbelQuantizer'} & {*types_in(found)}
    logits = composed(ir_config='configs/vqvae_gan_study/vqgan_1024_gumbel_later.py')  # its encoder ends in 1,024 logits
    assert logits.trainer.model.tokenizer.decoder.in_channels == 256
    continuous = composed('digits/decoder', it_config='configs/digits/kl.py')
    assert not {'CodebookMetric', 'WindowedCodebookMetric'} & {*types_in(continuous)}


def test_modules_of_the_tokenizer_come_along(tmp_path: Path) -> None:
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = ['configs/digits/vq_ema.py']\ncustom_imports = ['tests.runners.parts']\n")
    for name in ('digits/decoder', 'digits/probe'):
        assert composed(name, it_config=str(mine)).custom_imports == ['tests.runners.parts']


def test_a_tokenizer_with_its_decoder_is_frozen_as_one(tmp_path: Path) -> None:
    """Generators take it by ``ir_config`` and both weights. The config in a run folder contains the inner weights."""
    given = dict(it_config='configs/vqgan/1024_imagenet_ddp.py', it_state_dict='inner', ir_state_dict='outer')
    fragment = 'configs/models/frozen_tokenizer.py'
    found = PyConfig.load(fragment, ir_config='configs/decoder/vqgan.py', **given)
    whole = found.part.tokenizer
    assert (found.part.weights, whole.type, whole.frozen.weights) == ('outer', 'TokenizerWithDecoder', 'inner')
    assert whole.frozen.tokenizer.quantizer.codebook_size == 1024
    assert found.metrics.codebook == {'type': 'CodebookMetric'}
    PyConfig.load('configs/decoder/vqgan.py', it_config=given['it_config'], it_state_dict='mine').dump(tmp_path / 'run.py')
    found = PyConfig.load(fragment, ir_config=str(tmp_path / 'run.py'), ir_state_dict='outer')
    assert (found.part.weights, found.part.tokenizer.frozen.weights) == ('outer', 'mine')
    (tmp_path / 'circle.py').write_text("from vq.core import PyConfig\nfound = PyConfig.load('configs/ic/interface.py')\n")
    with pytest.raises(ConfigError, match='in a circle'):
        PyConfig.load(tmp_path / 'circle.py', ir_config=str(tmp_path / 'circle.py'))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(decoder='vqdk'), "decoder is 'vqdk'"),
        (dict(ir_config='configs/ic/imagenet_ddp.py'), 'trains ImageClassification, so it has no pixel decoder'),
        (dict(it_config='configs/datasets/digits.py'), 'describes no model, which has no tokenizer'),
        (dict(it_config='configs/ic/imagenet_ddp.py'), 'describes ImageClassification, which has no tokenizer'),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        composed(**options)


# commands

OPTIONS = ['--config-options', 'iters:8', 'start:2', 'batch_size:8', 'ir_config::configs/digits/vqgan.py']
QUICK = ['.trainer.optimizers.tokenizer.schedule.warmup:0', '.trainer.callbacks[-1].interval:4']
RUN = ['configs/digits/decoder.py', *OPTIONS, 'tokenizer_run::tokens', '--override', *QUICK]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    with commands_here(dry=False):
        yield tmp_path


def results(run_folder: Path) -> Any:
    return json.loads((run_folder / 'results.json').read_text())['results']


def make_tokens(capsys: Any, *more: str) -> None:
    quick = '.trainer.optimizers.tokenizer.schedule.warmup:0'
    said_by(
        capsys, train.main, 'tokens', 'configs/digits/vq_ema.py', '--config-options', 'iters:2', '--override', quick, *more
    )


@pytest.mark.slow
def test_a_decoder_from_its_tokenizer_to_its_figures(folder: Path, capsys: Any) -> None:
    make_tokens(capsys)
    said_by(capsys, train.main, 'made', *RUN)
    runs = folder / 'work_dirs'
    last = runs / 'made' / 'checkpoints' / 'iter_8'
    recorded = json.loads((last / 'meta.json').read_text())['frozen']
    assert [*recorded] == ['work_dirs/tokens/checkpoints/iter_2/ema.safetensors']
    for name, prefixes in (('model', {'tokenizer', 'discriminator'}), ('ema', {'tokenizer'})):
        kept = load_file(last / f'{name}.safetensors')
        assert {key.split('.')[0] for key in kept} == prefixes
        assert [key for key in kept if key.startswith('tokenizer.frozen.')] == ['tokenizer.frozen.digest']

    # as a tokenizer: the tokens of the one, the pixels of the other
    made, tokens = load('made'), load('tokens')
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    code = tokens.tokenize(image)
    assert torch.equal(made.tokenize(image), code) and made.token_shape == (4, 4)
    whole = made.model
    pixels = whole.decoder(whole.pre_decode(tokens.model.lookup(code)))
    assert torch.equal(made.detokenize(code), ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    assert not torch.equal(made.detokenize(code), tokens.detokenize(code))

    # all commands
    said_by(capsys, val.main, 'made', *RUN)
    found = results(runs / 'made' / 'val' / 'iter_8')
    assert found['samples'] == 180 and found['psnr'] > 0 and 0 < found['codebook_usage'] <= 1 and found['loss/l2'] > 0
    weights = ('--load-model-from', str(runs / 'made'))
    said_by(capsys, test_command.main, 'made', *RUN, *weights)
    assert results(runs / 'made_test')['psnr'] == found['psnr']
    said_by(capsys, test_command.main, 'again', str(runs / 'made' / 'decoder.py'), *weights)  # which needs no option
    assert results(runs / 'again_test')['psnr'] == found['psnr']
    for name, words in (('made', RUN), ('tokens', ['configs/digits/vq_ema.py'])):
        said_by(capsys, tokenize.main, name, *words, '--load-model-from', str(runs / name))
    one, other = (load_file(next((runs / f'{name}_tokenize' / 'tokens').glob('*.safetensors'))) for name in ('made', 'tokens'))
    assert one.keys() == other.keys() and torch.equal(one['tokens'], other['tokens'])
    makers = [ShardSet(runs / f'{name}_tokenize' / 'tokens').manifest.producer['weights_hash'] for name in ('made', 'tokens')]
    assert makers[0] == makers[1] != '', 'a generator of the one may learn from the tokens of the other'
    Image.new('RGB', (40, 40), 'gray').save(folder / 'gray.png')
    said_by(capsys, inference.main, RUN[0], 'gray.png', *RUN[1:], *weights, '--output', 'seen')
    assert {path.name for path in (folder / 'seen').iterdir()} == {'gray_pair.png', 'gray_tokens.png', 'gray_tokens.npy'}

    # resuming is bitwise exact, and needs no options
    shutil.copytree(runs / 'made', runs / 'resumed')
    shutil.rmtree(runs / 'resumed' / 'checkpoints' / 'iter_8')
    said_by(capsys, train.main, 'resumed', *RUN, '--auto-resume')
    assert_same(everything(last), everything(runs / 'resumed' / 'checkpoints' / 'iter_8'))
    assert [line for line in logged(runs / 'made') if line['kind'] == 'train'] == [
        line for line in logged(runs / 'resumed') if line['kind'] == 'train'
    ]

    # another tokenizer in the place of the one it was trained on
    shutil.rmtree(runs / 'tokens')
    make_tokens(capsys, '--seed', '1')
    assert 'belongs to another tokenizer' in said_by(capsys, test_command.main, 'made', *RUN, *weights, code=2)
    with pytest.raises(UserError, match='was trained with another work_dirs/tokens'):
        load('made')
    shutil.rmtree(runs / 'resumed' / 'checkpoints' / 'iter_8')
    assert 'was trained with another' in said_by(capsys, train.main, 'resumed', *RUN, '--auto-resume', code=2)


@pytest.mark.slow
def test_commands_as_other_documents_give_them(folder: Path, capsys: Any) -> None:
    """``it_config`` with ``--load-model-from``, with the file name of other toolkits, in every command."""
    make_tokens(capsys)
    mine = ['configs/digits/decoder.py', *OPTIONS, 'it_config::configs/digits/vq_ema.py', '--override', *QUICK]
    lenient = '.trainer.callbacks[-1].load_state_dict:dict(strict=False)'
    tokens = ['--load-model-from', 'work_dirs/tokens/checkpoints/iter_2/model.pth']
    said_by(capsys, train.main, 'made', *mine, lenient, *tokens)
    runs = folder / 'work_dirs'
    assert PyConfig.load(runs / 'made' / 'decoder.py').trainer.model.tokenizer.frozen.weights == tokens[1]
    shutil.rmtree(runs / 'made' / 'checkpoints' / 'iter_8')
    said_by(capsys, train.main, 'made', *mine, '--auto-resume', *tokens)
    said_by(capsys, val.main, 'made', *mine, *tokens)
    assert {path.name for path in (runs / 'made' / 'val').glob('iter_*')} == {'iter_4', 'iter_8'}
    said_by(capsys, test_command.main, 'made', *mine, *tokens, 'work_dirs/made')
    assert results(runs / 'made_test')['psnr'] == results(runs / 'made' / 'val' / 'iter_8')['psnr']
    assert 'Name both' in said_by(capsys, test_command.main, 'made', *mine, *tokens, code=2)
    message = said_by(capsys, test_command.main, 'made', *mine, '--load-model-from', 'work_dirs/made', code=2)
    assert 'which tokenizer to use' in message
    assert take_tokenizer(PyConfig(), ['a', 'b']) == ['a', 'b'], 'other configs are left alone'


# ranks

SGD = dict(type='SGD', lr=0.02)  # Adam would amplify rounding errors of gradients near zero to whole steps


def train_decoder(folder: str, options: dict[str, Any], strategy: str) -> dict[str, torch.Tensor]:
    """Six adversarial steps from seeded weights: the model's state. Ranks of the pool call it too."""
    settings = dict(
        options, strategy=strategy, ir_config='configs/digits/vqgan.py', iters=6, start=1, batch_size_in_total=True
    )
    config = compose('configs/digits/decoder.py', settings, {}, tiny=False)
    config.trainer.callbacks = []
    config.trainer.optimizers = dict(tokenizer=SGD, discriminator=SGD)
    config.trainer.model.update(warmup=0, ramp=0)
    torch.manual_seed(derive_seed('parameters', 7))
    trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    trainer.bind(RunContext('decoder', Path(folder) / 'run', seed=7))
    trainer.run()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.slow
def test_two_ranks_equal_one_process(tmp_path: Path, gloo_pool: GlooPool) -> None:
    options = dict(batch_size=8, width=8)
    first, second = gloo_pool.run(train_decoder, str(tmp_path), options, 'ddp')
    assert_same(first, second)
    with tempfile.TemporaryDirectory() as folder:
        alone = train_decoder(folder, options, 'base')
    assert any(name.startswith('discriminator.') for name in alone)
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=5e-5, msg=lambda text, name=name: f'{name}: {text}')
