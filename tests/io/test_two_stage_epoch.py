"""The folder of an epoch of the two-stage framework, written here: no file of the framework was available."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vq
from tests.tokenizers.test_mae_autoencoder import theirs
from vq.cli.convert import main
from vq.io import tensorfile
from vq.io.published import two_stage
from vq.nn.sine_positions import sine_grid

SCALE = two_stage.LATENT_SCALE
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@pytest.fixture(scope='module')
def peer() -> Any:
    import diffusers

    torch.manual_seed(0)
    blocks = dict(down_block_types=('DownEncoderBlock2D',) * 2, up_block_types=('UpDecoderBlock2D',) * 2)
    shape = dict(block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16)
    return diffusers.AutoencoderKL(**blocks, **shape).eval()


def critic() -> dict[str, Tensor]:
    """A patch discriminator of depth 1, without norms."""
    layers = [nn.Conv2d(3, 4, 4), nn.LeakyReLU(), nn.Conv2d(4, 8, 4), nn.LeakyReLU(), nn.Conv2d(8, 1, 4)]
    return nn.Sequential(*layers).state_dict(prefix='main.')


def dit_state() -> dict[str, Tensor]:
    """A DiT of the published names: 4 channels, 4 x 4 cells, patch 2, 8 channels, one block, 3 classes."""
    draw = torch.Generator().manual_seed(2)
    shapes = {
        'pos_embed': (1, 4, 8),
        'x_embedder.proj.weight': (8, 4, 2, 2),
        'x_embedder.proj.bias': (8,),
        't_embedder.mlp.0.weight': (8, 256),
        't_embedder.mlp.0.bias': (8,),
        't_embedder.mlp.2.weight': (8, 8),
        't_embedder.mlp.2.bias': (8,),
        'y_embedder.embedding_table.weight': (4, 8),
        'blocks.0.attn.qkv.weight': (24, 8),
        'blocks.0.attn.qkv.bias': (24,),
        'blocks.0.attn.proj.weight': (8, 8),
        'blocks.0.attn.proj.bias': (8,),
        'blocks.0.mlp.fc1.weight': (32, 8),
        'blocks.0.mlp.fc1.bias': (32,),
        'blocks.0.mlp.fc2.weight': (8, 32),
        'blocks.0.mlp.fc2.bias': (8,),
        'blocks.0.adaLN_modulation.1.weight': (48, 8),
        'blocks.0.adaLN_modulation.1.bias': (48,),
        'final_layer.linear.weight': (32, 8),
        'final_layer.linear.bias': (32,),
        'final_layer.adaLN_modulation.1.weight': (16, 8),
        'final_layer.adaLN_modulation.1.bias': (16,),
    }
    state = {key: torch.randn(shape, generator=draw) for key, shape in shapes.items()}
    return {**state, 'pos_embed': sine_grid(2, 2, 8)[None]}


def write_epoch(folder: Path, peer: Any, second: bool = True, **more: Tensor) -> Path:
    """``ep_10-checkpoint``: the weights, and an average of other weights; the states that are left out."""
    folder.mkdir()
    first = {f'stage_1_model.vae.{key}': value for key, value in peer.state_dict().items()}
    stages = {f'stage_2_model.model.{key}': value for key, value in dit_state().items()} if second else {}
    whole = {**first, **stages, **more}
    halved = {f'module.{key}': value if value.dtype == torch.long else value / 2 for key, value in whole.items()}
    if second:
        halved['module.stage_2_model.model.pos_embed'] = whole['stage_2_model.model.pos_embed']
    torch.save(whole, folder / '0-model.pt')
    torch.save(halved, folder / '0-ema-model.pt')
    torch.save({'state': {0: {'exp_avg': torch.zeros(2)}}, 'param_groups': []}, folder / '0-optimizer.pt')
    torch.save({'last_epoch': 3}, folder / '0-scheduler.pt')
    torch.save({'discriminator': critic()}, folder / '0-additional.pt')
    return folder


def convert(folder: Path, *options: str) -> int:
    return main(['two_stage', str(folder), '--options', 'image_size:16', 'norm_groups:4', 'heads:2', *options])


def test_both_stages_are_read(tmp_path: Path, peer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(write_epoch(tmp_path / 'ep_10-checkpoint', peer), 'weights::model') == 0
    said = capsys.readouterr().out
    assert '0-ema-model.pt, 0-optimizer.pt, 0-scheduler.pt' in said and 'of the discriminator' in said
    made = tmp_path / 'ep_10-checkpoint.converted'
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    tokenizer = vq.load(str(made / 'tokenizer.safetensors'))
    with torch.no_grad():
        theirs = peer.encode(images / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(tokenizer.encode(images), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokenizer.model.normalize(theirs), theirs * SCALE)
    written = tensorfile.read_tensors(made / 'denoiser.safetensors')
    state = dit_state()
    assert len(written) == len(state) - 1
    torch.testing.assert_close(written['conditioner.table.weight'], state['y_embedder.embedding_table.weight'])


OLD = {  # names in a block of transformers 5, and those before, which the framework had
    'attention.o_proj': 'attention.output.dense',
    'attention.q_proj': 'attention.attention.query',
    'attention.k_proj': 'attention.attention.key',
    'attention.v_proj': 'attention.attention.value',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}


def test_a_masked_autoencoder_has_the_outputs_of_transformers(tmp_path: Path) -> None:
    network = theirs(0.0)
    state = {}
    for key, value in network.state_dict().items():
        found = re.fullmatch(r'(vit\.|decoder\.decoder_)layers\.(\d+)\.(.+)\.(weight|bias)', key)
        if found:
            side = 'vit.encoder.layer' if found[1] == 'vit.' else 'decoder.decoder_layers'
            key = f'{side}.{found[2]}.{OLD.get(found[3], found[3])}.{found[4]}'
        state[f'stage_1_model.model.{key}'] = value
    folder = tmp_path / 'epoch'
    folder.mkdir()
    torch.save(state, folder / '0-model.pt')
    assert main(['two_stage', str(folder), '--options', 'encoder_heads:2', 'decoder_heads:3']) == 0
    tokenizer = vq.load(str(tmp_path / 'epoch.converted/tokenizer.safetensors')).model
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latent = tokenizer.encode(image).mean
        pixels, noise = tokenizer.encoder.teacher.preprocess(image), torch.arange(16.0).expand(2, -1)
        encoded, made = network.vit(pixels, noise=noise).last_hidden_state, network(pixels, noise=noise).logits
        torch.testing.assert_close(latent.transpose(1, 2), encoded, rtol=1e-4, atol=1e-4)
        deviation, mean = (torch.tensor(values).view(1, 3, 1, 1) for values in (STD, MEAN))
        expected = (network.unpatchify(made) * deviation + mean) * 2 - 1
        torch.testing.assert_close(tokenizer.decode(latent), expected, rtol=1e-4, atol=1e-4)


def test_the_average_is_taken_where_there_is_one(tmp_path: Path, peer: Any) -> None:
    folder = write_epoch(tmp_path / 'epoch', peer)
    assert convert(folder, 'discriminator:False') == 0
    written = tensorfile.read_tensors(tmp_path / 'epoch.converted/tokenizer.safetensors')
    assert not any(key.startswith('discriminator.') for key in written)
    half = peer.state_dict()['encoder.conv_in.weight'] / 2
    torch.testing.assert_close(written['tokenizer.encoder.stem.weight'], half)


def test_statistics_of_the_connector_are_those_of_the_latents(tmp_path: Path, peer: Any) -> None:
    norm = nn.BatchNorm2d(4, affine=False)
    norm.running_mean.copy_(torch.randn(4)), norm.running_var.copy_(torch.rand(4) + 0.1)  # type: ignore[union-attr]
    folder = write_epoch(tmp_path / 'epoch', peer, second=False, **norm.state_dict(prefix='connector.bn.'))
    assert convert(folder, 'weights::model') == 0
    assert not (tmp_path / 'epoch.converted/denoiser.safetensors').exists()
    z = torch.randn(2, 4, 8, 8)
    tokenizer = vq.load(str(tmp_path / 'epoch.converted/tokenizer.safetensors')).model
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.normalize(z), norm.eval()(z * SCALE), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('key', 'shown'),
    [
        ('stage_1_model.model.conv.weight', 'stage_1_model.model.conv.weight'),
        ('stage_2_model.compressor.layers.0.weight', 'stage_2_model.compressor.layers.0.weight'),
        ('stage_2_model.model.blocks.0.extra.weight', 'blocks.0.extra.weight'),
        ('connector.conv.weight', 'connector.conv.weight'),
        ('decoder.weight', 'decoder.weight'),
    ],
)
def test_unknown_keys_are_listed(tmp_path: Path, peer: Any, capsys: pytest.CaptureFixture[str], key: str, shown: str) -> None:
    folder = write_epoch(tmp_path / 'epoch', peer, **{key: torch.zeros(2)})
    assert convert(folder, 'weights::model') == 2
    assert shown in capsys.readouterr().err and not (tmp_path / 'epoch.converted').exists()


def test_folders_that_are_none(tmp_path: Path, peer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'empty').mkdir()
    for folder, words in ((tmp_path / 'empty', 'no file 0-model.pt'), (tmp_path / 'nowhere', 'not a folder')):
        assert convert(folder) == 2
        assert words in capsys.readouterr().err
    folder = write_epoch(tmp_path / 'epoch', peer)
    torch.save({'discriminator': critic(), 'lpips': {}}, folder / '0-additional.pt')
    assert convert(folder) == 2
    assert "'discriminator' is known" in capsys.readouterr().err
    assert convert(folder, 'weights::best') == 2
    assert "option 'weights'" in capsys.readouterr().err


class Runs:
    """An object whose unpickling would call a function."""

    def __reduce__(self) -> Any:
        return print, ('executed',)


def test_code_in_a_file_is_refused(tmp_path: Path, peer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_epoch(tmp_path / 'epoch', peer)
    torch.save({'stage_1_model.vae.x': Runs()}, folder / '0-ema-model.pt')
    assert convert(folder) == 2
    said = capsys.readouterr()
    assert 'refused' in said.err and 'executed' not in said.out + said.err
