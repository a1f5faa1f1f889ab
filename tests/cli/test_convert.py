"""``tools/convert_checkpoints.py``, and ``vq.load`` of its output."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vq
from tests.io.test_published import small_beit2, small_taming
from tests.published import read_golden
from tests.warm import programs
from vq.cli.convert import convert_file, main
from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.atomic import atomic_file
from vq.io.digest import read_digest
from vq.io.published import catalog
from vq.io.published.converted import read_about

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'convert_checkpoints.py'


def tool(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [programs() / 'python', str(TOOL), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope='module')
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Lightning-like file of a golden model, converted by the tool."""
    peer, folder = read_golden('taming_vqmodel_a'), tmp_path_factory.mktemp('converted')
    extra = {'loss.perceptual_loss.lin0.model.1.weight': torch.zeros(1, 4, 1, 1)}
    torch.save({'epoch': 1, 'state_dict': {**peer.state, **extra}}, folder / 'last.ckpt')
    done = tool('taming', 'last.ckpt', '--options', 'image_size:16', folder=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ['last.ckpt', 'last.ckpt.converted']
    (folder / 'said.txt').write_text(done.stdout)
    return folder / 'last.ckpt.converted'


@pytest.mark.slow
class TestTool:
    def test_says_what_it_did(self, converted: Path) -> None:
        lines = dict(line.split(maxsplit=1) for line in (converted.parent / 'said.txt').read_text().splitlines())
        assert lines['tensors'] == '151 of the tokenizer'
        assert lines['left'] == 'out     1: perceptual network: read from files of its own'
        assert lines['codes'] == '64 of 16 channels (VectorQuantizer)'
        assert lines['tokens'] == '8 x 8 per image of 16 pixels'
        assert lines['parameters'] == '238,899'
        assert 'last.ckpt.converted' in lines['written']
        assert (
            "vq.load('last.ckpt.converted'), or --load-model-from last.ckpt.converted"
            in (converted.parent / 'said.txt').read_text()
        )

    def test_file_says_what_it_is(self, converted: Path) -> None:
        about = read_about(converted)
        assert about.kind == 'taming'
        assert about.image_size == 16
        assert about.source == 'last.ckpt'
        assert about.source_sha256 == read_digest(converted.with_name('last.ckpt'))
        assert about.tokenizer['type'] == 'VQGAN'
        assert all(key.startswith('tokenizer.') for key in about.shapes)

    def test_help_comes_without_torch(self, tmp_path: Path) -> None:
        command = [sys.executable, '-X', 'importtime', str(TOOL), '--help']
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert 'llamagen' in done.stdout
        loaded = {line.rpartition('|')[2].strip().partition('.')[0] for line in done.stderr.splitlines()}
        assert 'argparse' in loaded
        assert not loaded & {'torch', 'todd', 'numpy'}

    def test_unknown_kind_is_a_usage_error(self, tmp_path: Path) -> None:
        done = tool('tamming', 'a.ckpt', folder=tmp_path)
        assert done.returncode == 2
        assert 'tamming' in done.stderr


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


class TestErrors:
    """Exit code 2; the message names the file; the last line says what to do; nothing is written."""

    @pytest.mark.parametrize(
        ('kind', 'content', 'options', 'message', 'advice'),
        [
            ('taming', None, (), 'there is no file', 'In '),
            ('taming', {'state_dict': {'a.b': torch.zeros(1)}}, (), '1 of 1 keys are unknown: a.b', '--help'),
            ('llamagen', {'state_dict': small_taming()}, (), 'keys are unknown: encoder.down.0', '--help'),
            ('taming', {'weights': {}}, (), 'not a state dict', "under 'state_dict'"),
            ('taming', {'state_dict': small_taming()}, ('image_size:17',), 'cells of 2 pixels', 'image_size:32'),
            ('taming', {'state_dict': small_taming()}, ('imagesize:16',), "did you mean 'image_size'", 'It takes: beta'),
            ('taming', {'state_dict': small_taming()}, ('image_size::many',), "'many', and int is needed", 'image_size:VALUE'),
            ('reference', {}, ('distance::l1',), "'l1', and 'l2' | 'cosine' is needed", 'distance:VALUE'),
            ('tokens', None, (), 'needs the option codebook_size', '--options codebook_size:VALUE'),
            ('tokens', None, ('codebook_size:8',), 'is not a folder', 'ITERATION_RANK.pth'),
            ('statistics', {'a': 1}, (), 'could be the mean', 'a covariance (D, D)'),
            ('statistics', {'a': 1}, ('size:1',), "has no option 'size'", 'It takes: no options'),
        ],
    )
    def test_bad_input(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        kind: str,
        content: Any,
        options: tuple[str, ...],
        message: str,
        advice: str,
    ) -> None:
        file = tmp_path / 'last.ckpt'
        if content is not None:
            torch.save(content, file)
        code, said = run(capsys, kind, file, *(['--options', *options] if options else []))
        assert code == 2
        assert message in said
        assert advice in said.strip().splitlines()[-1]
        assert 'Traceback' not in said
        if 'option' not in message and 'needed' not in message and not options:
            assert str(file) in said
        assert not (tmp_path / 'last.ckpt.converted').exists()

    def test_result_never_replaces_its_source(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / 'last.ckpt'
        torch.save({'state_dict': small_taming()}, file)
        before = file.read_bytes()
        for arguments in (['--suffix', ''], ['--output', str(file)]):
            code, said = run(capsys, 'taming', file, *arguments)
            assert code == 2
            assert '--output' in said
        assert file.read_bytes() == before

    @pytest.mark.parametrize(
        ('spoil', 'message'),
        [
            (lambda value: value.clone().fill_(torch.nan), 'holds NaN'),
            (lambda value: value.long(), 'is int64, and the model has float32'),
            (lambda value: value + 1j, 'is complex64, and its imaginary part would be dropped'),
        ],
    )
    def test_values_that_are_no_weights_are_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, message: str
    ) -> None:
        state = small_taming()
        key = next(iter(state))
        torch.save({'state_dict': {**state, key: spoil(state[key])}}, tmp_path / 'last.ckpt')
        code, said = run(capsys, 'taming', tmp_path / 'last.ckpt')
        assert code == 2
        assert 'last.ckpt holds values that are no weights' in said and message in said
        assert [path.name for path in tmp_path.iterdir()] == ['last.ckpt']

    def test_output_and_suffix(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        torch.save({'state_dict': small_taming()}, tmp_path / 'last.ckpt')
        assert run(capsys, 'taming', tmp_path / 'last.ckpt', '--suffix', '.ours')[0] == 0
        assert run(capsys, 'taming', tmp_path / 'last.ckpt', '--output', tmp_path / 'deep' / 'x')[0] == 0
        assert (tmp_path / 'last.ckpt.ours').read_bytes() == (tmp_path / 'deep' / 'x').read_bytes()


def test_tokens_and_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'tokens').mkdir()
    torch.save(
        {'id_': ['b', 'a'], 'category': torch.arange(2), 'tokens': torch.arange(8).view(2, 2, 2)}, tmp_path / 'tokens/0_0.pth'
    )
    assert main(['tokens', str(tmp_path / 'tokens'), '--options', 'codebook_size:8']) == 0
    assert '0 duplicate samples' in capsys.readouterr().out
    from vq.io.shards import ShardSet

    shards = ShardSet(tmp_path / 'tokens.converted')
    assert shards.ids() == ['a', 'b']
    assert np.array_equal(shards[0]['tokens'], [[[4, 5], [6, 7]]])

    covariance = torch.eye(3) * 2
    torch.save({'mean': torch.arange(3.0), 'cov': covariance, 'num': 9}, tmp_path / 'val.pth')
    assert main(['statistics', str(tmp_path / 'val.pth')]) == 0
    assert torch.equal(tensorfile.read_tensors(tmp_path / 'val.pth.converted')['covariance'], covariance.double())


class TestLoad:
    @pytest.mark.slow
    def test_numbers_are_those_of_the_peer(self, converted: Path) -> None:
        peer = read_golden('taming_vqmodel_a')
        tokenizer = vq.load(converted)
        assert torch.equal(tokenizer.tokenize(peer['in/image']), peer['out/indices'])
        decoded = tokenizer.model.detokenize(peer['out/indices'])
        torch.testing.assert_close(decoded, peer['out/decoded_from_indices'], rtol=1e-4, atol=2e-5)
        assert (tokenizer.image_size, tokenizer.codebook_size, tokenizer.token_shape) == (16, 64, (8, 8))
        assert str(converted) in repr(tokenizer)

    @pytest.mark.slow
    def test_gumbel_and_llamagen(self, tmp_path: Path) -> None:
        for kind, name, nest, wanted in (
            ('taming', 'taming_gumbelvq', 'state_dict', 'out/argmax_indices'),
            ('llamagen', 'llamagen_vq_a', 'model', 'out/indices'),
        ):
            peer, file = read_golden(name), tmp_path / f'{name}.pt'
            torch.save({nest: peer.state}, file)
            convert_file(kind, file, {'image_size': 16}, tmp_path / name)
            assert torch.equal(vq.load(tmp_path / name).tokenize(peer['in/image']), peer[wanted])

    def test_a_continuous_autoencoder(self, tmp_path: Path) -> None:
        peer, file = read_golden('mar_kl_vae'), tmp_path / 'kl16.ckpt'
        torch.save({'model': peer.state}, file)
        said = dict(convert_file('mar_kl16', file, {'image_size': 16}, tmp_path / 'kl16'))
        assert said['latent'] == '4 x 8 x 8 per image of 16 pixels, continuous (KLAutoencoder)'
        assert 'codes' not in said
        loaded = vq.load(tmp_path / 'kl16')
        latents = loaded.encode(peer['in/image'])
        torch.testing.assert_close(latents, peer['out/mean'], rtol=1e-4, atol=2e-5)
        assert torch.equal(loaded.reconstruct(peer['in/image']), loaded.decode(latents))
        wanted = ((peer['out/reconstruction_of_mean'].clamp(-1, 1) + 1) * 127.5).round()
        assert (loaded.decode(latents).float() - wanted).abs().max() <= 1  # rounding of a value between two levels
        assert 'continuous' in repr(loaded)
        with pytest.raises(UserError, match='no tokens'):
            loaded.tokenize(peer['in/image'])

    def test_multi_scale_tokens(self, tmp_path: Path) -> None:
        peer, file = read_golden('var_multiscale_vq'), tmp_path / 'vae.pth'
        torch.save(peer.state, file)
        said = dict(convert_file('var', file, {'scales': (1, 2, 4, 6)}, tmp_path / 'vae'))
        assert said['codes'] == '48 of 8 channels (MultiScaleQuantizer)'
        loaded = vq.load(tmp_path / 'vae')
        assert loaded.image_size == 12
        assert loaded.token_shape == (57,)
        tokens = loaded.tokenize(peer['in/image'])
        assert torch.equal(tokens, torch.cat([peer[f'out/indices_scale{index}'] for index in range(4)], dim=1))
        wanted = ((peer['out/image'] + 1) * 127.5).round()
        assert (loaded.detokenize(tokens).float() - wanted).abs().max() <= 1

    @pytest.mark.slow
    def test_load_model_from_takes_it(self, converted: Path) -> None:
        """It can be the weights of a task, since it has a task's keys."""
        from vq.interfaces import Task
        from vq.io.weights import load_model_from
        from vq.registries import VQModelRegistry

        task = Task()
        task.tokenizer = VQModelRegistry.build(read_about(converted).tokenizer)
        report = load_model_from(task, [converted])
        assert not report.missing
        assert not report.unexpected

    @pytest.mark.slow
    def test_by_name(self, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        remote = catalog.RemoteFile('http://localhost/x.ckpt', 'taming/x.ckpt', None, 'nowhere')
        entries = (
            catalog.Published('tiny-published', 'a test', (remote,), 'taming'),
            catalog.Published('a-network', 'features', (remote,), None),
        )
        monkeypatch.setattr(catalog, 'CATALOG', entries)
        monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path / 'kept'))
        with pytest.raises(UserError, match=r"'tiny-published' \(a test\) is not there yet") as caught:
            vq.load('tiny-published', work_dir=tmp_path)
        assert caught.value.hint.endswith('python -m vq.tools.prepare_checkpoints tiny-published')
        (tmp_path / 'kept/taming').mkdir(parents=True)
        (tmp_path / 'kept/taming/x.ckpt.converted').write_bytes(converted.read_bytes())
        assert vq.load('tiny-published', work_dir=tmp_path).codebook_size == 64
        with pytest.raises(UserError, match="'a-network' is not a tokenizer"):
            vq.load('a-network', work_dir=tmp_path)
        with pytest.raises(UserError, match="'tiny-publisht'; did you mean 'tiny-published'"):
            vq.load('tiny-publisht', work_dir=tmp_path)

    def test_vqkd_with_and_without_its_decoder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """By the two commands of the document; the feature decoder changes no token."""
        file = tmp_path / 'vqkd_encoder_base_decoder_1x768x12_clip.pth'
        torch.save({'model': small_beit2()}, file)
        assert main(['beitv2', str(file), '--options', 'with_decoder:False']) == 0
        said = capsys.readouterr().out
        assert 'left out     23: feature decoder: left out by an option' in said
        assert 'codes        16 of 32 channels (VectorQuantizer)' in said
        assert main(['beitv2', str(file), '--options', 'with_decoder:True', '--suffix', '.converted.with_decoder']) == 0
        alone, whole = (vq.load(f'{file}{suffix}') for suffix in ('.converted', '.converted.with_decoder'))
        assert alone.model.feature_decoder is None and whole.model.feature_decoder.out_channels == 24
        image = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
        assert torch.equal(alone.tokenize(image), whole.tokenize(image))
        assert alone.model.quantizer.codebook_update.count.any()  # training goes on where it stopped

    def test_published_names_are_in_the_catalog(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
        for name in (
            'taming-f16-1024',
            'taming-f16-16384',
            'taming-gumbel-f8',
            'llamagen-vq-16',
            'llamagen-vq-8',
            'beit2-vqkd-clip',
        ):
            with pytest.raises(UserError, match='is not there yet'):
                vq.load(name, work_dir=tmp_path)

    def test_other_files_are_refused_with_advice(self, tmp_path: Path) -> None:
        torch.save({'a': torch.zeros(1)}, tmp_path / 'last.ckpt')
        with pytest.raises(UserError, match='is a torch file') as caught:
            vq.load(tmp_path / 'last.ckpt')
        assert 'vq.tools.convert_checkpoints KIND' in caught.value.hint
        with atomic_file(tmp_path / 'w.safetensors') as writer:
            tensorfile.write_tensors(writer, {'a': torch.zeros(1)})
        with pytest.raises(UserError, match='does not describe'):
            vq.load(tmp_path / 'w.safetensors')


def forge(source: Path, target: Path, tensors: dict[str, Tensor] | None = None, **notes: str) -> Path:
    """A converted file with forged metadata."""
    metadata = {**tensorfile.read_header(source).metadata, **{f'vq.{name}': value for name, value in notes.items()}}
    with atomic_file(target) as writer:
        tensorfile.write_tensors(writer, tensors or tensorfile.read_tensors(source), metadata)
    return target


class TestUntrustedMetadata:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ('notes', 'message'),
        [
            (dict(tokenizer='{'), 'cannot be read'),
            (dict(tokenizer='[1]'), 'cannot be read'),
            (dict(tokenizer='[' * 100_000), 'cannot be read'),
            (dict(tokenizer='{"a": "%s"}' % ('x' * 300_000)), 'too long'),
            (dict(tokenizer='{}'), "'type' is missing"),
            (dict(tokenizer='{"type": "os.system"}'), "'os.system'|there is no registry 'os'"),
            (dict(tokenizer='{"type": "ConvEncoder"}'), 'is needed here'),
            (dict(tokenizer='{"type": "VQGAN", "encoder": 3}'), '4 problems|3 problems|a part is needed'),
            (dict(image_size='-4'), 'cannot be read'),
            (dict(image_size='9' * 30), 'cannot be read'),
            (dict(image_size='17'), r'images are \(16, 16\) in one place and \(17, 17\) in another'),
            (dict(format_version='99'), 'has format 99'),
        ],
    )
    def test_nonsense(self, converted: Path, tmp_path: Path, notes: dict[str, str], message: str) -> None:
        file = forge(converted, tmp_path / 'forged', **notes)
        with pytest.raises(UserError, match=message) as caught:
            vq.load(file)
        assert caught.value.hint

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ('part', 'name', 'value'),
        [
            ('encoder', 'residual_blocks', 10**7),
            ('encoder', 'multipliers', [1] * 10**5),
            ('encoder', 'width', 10**40),
            ('encoder', 'width', 10**8),
            ('decoder', 'refine_blocks', 10**9),
            ('quantizer', 'codebook_size', 2**30),
            ('encoder', 'norm_groups', 2**29),
            ('quantizer', 'embedding_dim', -3),
        ],
    )
    def test_sizes_that_the_file_cannot_have(self, converted: Path, tmp_path: Path, part: str, name: str, value: Any) -> None:
        """Refused at once, without building that many parts or allocating that much memory."""
        config = read_about(converted).tokenizer
        config[part][name] = value
        file = forge(converted, tmp_path / 'forged', tokenizer=json.dumps(config))
        with pytest.raises(UserError, match='forged') as caught:
            vq.load(file)
        assert caught.value.hint

    @pytest.mark.slow
    def test_tensors_that_are_missing_or_too_many(self, converted: Path, tmp_path: Path) -> None:
        tensors = tensorfile.read_tensors(converted)
        fewer = {key: value for key, value in tensors.items() if key != 'tokenizer.encoder.stem.bias'}
        with pytest.raises(UserError, match=r"'encoder\.stem\.bias' is missing"):
            vq.load(forge(converted, tmp_path / 'a', fewer))
        with pytest.raises(UserError, match="'more' is not part of it"):
            vq.load(forge(converted, tmp_path / 'b', {**tensors, 'tokenizer.more': torch.zeros(2)}))


@pytest.mark.slow
def test_a_run_is_loaded_without_its_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the tokenizer is built, so files of losses are not needed."""
    from tests.runners.support import train, write_config

    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    assert train(str(tmp_path), 'run', 'tiny.py') == 0
    configs = list(tmp_path.glob('work_dirs/run/checkpoints/*/config.json'))
    assert configs
    for config in configs:
        text = config.read_text()
        assert 'Loss"' in text
        config.write_text(text.replace('Loss"', 'Lost"'))  # of the same length: the checkpoint stays complete
        marker = json.loads((config.parent / 'COMPLETE').read_text())
        marker['files']['config.json']['sha256'] = hashlib.sha256(config.read_bytes()).hexdigest()
        (config.parent / 'COMPLETE').write_text(json.dumps(marker))
    assert vq.load('run').codebook_size > 0
