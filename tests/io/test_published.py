"""Published checkpoints and our networks have the same tensors, at full size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.published import read_golden, read_manifest
from tests.shipped import composed
from vq.assembly.matching import fit
from vq.core.errors import UserError
from vq.io.published import beitv2, llamagen, mar_kl16, open_magvit2, reference, serezd, simvq, taming, var
from vq.io.published.keymap import Converted, drop, map_keys, rename, split
from vq.registries import VQDiscriminatorRegistry, VQModelRegistry

CONVERTERS = {
    'taming_vqgan_imagenet_f16_1024': taming,
    'taming_vqgan_imagenet_f16_16384': taming,
    'taming_gumbelvq_f8_8192': taming,
    'llamagen_vq_16': llamagen,
    'llamagen_vq_8': llamagen,
    'vq_reference_vqgan_f16_1024': reference,
    'vq_reference_vqgan_f16_16384': reference,
    'var_vqvae_ch160v4096z32': var,
    'mar_kl16_vae': mar_kl16,
    'serezd_vqvae_standard_256': serezd,
    'serezd_vqvae_ema_256': serezd,
    'serezd_vqvae_gumbel_256': serezd,
    'open_magvit2_imagenet_256_L': open_magvit2,
    'open_magvit2_pretrain256_16384': open_magvit2,
    'open_magvit2_pretrain256_262144': open_magvit2,
    'simvq_imagenet128_simvq_1k': simvq,
    'simvq_imagenet128_simvq_8k': simvq,
    'simvq_imagenet128_simvq_65k': simvq,
    'simvq_imagenet128_simvq_262k': simvq,
}
UNUSED = {'llamagen': ['quantize.codebook_used'], 'var': ['quantize.ema_vocab_hit_SV']}  # records that only training looks at
DISCRIMINATORS = ('loss.discriminator.', '_discriminator.')
PERCEPTUAL = 'loss.perceptual_loss.'


def state_of(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors with the listed shapes on the meta device, including those of losses."""
    shapes = {**manifest['tensors'], **manifest.get('loss_tensors', {})}
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


def shapes_of(converted: Converted) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in converted.tensors.items()}


def convert_and_fit(state: dict[str, Tensor], kind: Any = taming, **options: Any) -> None:
    converted = kind.convert(state, **options)
    fit(converted.tokenizer, shapes_of(converted), 'a file')


def small_taming() -> dict[str, Tensor]:
    """The keys of a VQModel with one residual block per level, two levels, 8 channels."""
    state: dict[str, Tensor] = {}

    def conv(name: str, after: int, before: int, kernel: int = 3) -> None:
        state[f'{name}.weight'], state[f'{name}.bias'] = torch.zeros(after, before, kernel, kernel), torch.zeros(after)

    def block(name: str, kind: str) -> None:
        parts = ('norm1', 'conv1', 'norm2', 'conv2') if kind == 'block' else ('norm', 'q', 'k', 'v', 'proj_out')
        for part in parts:
            if part.startswith('norm'):
                state[f'{name}.{part}.weight'], state[f'{name}.{part}.bias'] = torch.zeros(8), torch.zeros(8)
            else:
                conv(f'{name}.{part}', 8, 8, 3 if kind == 'block' else 1)

    for side, level, resample, blocks in (('encoder', 'down', 'downsample', 1), ('decoder', 'up', 'upsample', 2)):
        conv(f'{side}.conv_in', 8, 3 if side == 'encoder' else 4)
        for index in range(2):
            for number in range(blocks):
                block(f'{side}.{level}.{index}.block.{number}', 'block')
        conv(f'{side}.{level}.{0 if side == "encoder" else 1}.{resample}.conv', 8, 8)
        for part, kind in (('block_1', 'block'), ('attn_1', 'attention'), ('block_2', 'block')):
            block(f'{side}.mid.{part}', kind)
        state[f'{side}.norm_out.weight'], state[f'{side}.norm_out.bias'] = torch.zeros(8), torch.zeros(8)
        conv(f'{side}.conv_out', 4 if side == 'encoder' else 3, 8)
    conv('quant_conv', 6, 4, 1)
    conv('post_quant_conv', 4, 6, 1)
    state['quantize.embedding.weight'] = torch.zeros(32, 6)
    return state


def small_beit2(name: str = '1x768x12_clip', seed: int = 0) -> dict[str, Tensor]:
    """The keys of a VQ-KD file with one block in each network, 64 channels, 16 codes, images of 32 pixels; random values."""
    small, generator = {768: 64, 3072: 256, 2304: 192, 8192: 16, 197: 5, 512: 24}, torch.Generator().manual_seed(seed)
    return {
        key: torch.randn([small.get(length, length) for length in shape], generator=generator)
        for key, shape in read_manifest(f'beit2_vqkd_base_decoder_{name}')['tensors'].items()
        if '.blocks.' not in key or '.blocks.0.' in key
    }


@pytest.mark.slow
@pytest.mark.parametrize('name', CONVERTERS)
def test_every_tensor_maps(name: str) -> None:
    manifest = read_manifest(name)
    state = state_of(manifest)
    converted = CONVERTERS[name].convert(state)
    tokenizer = fit(converted.tokenizer, shapes_of(converted), name)  # strict both ways: keys and shapes

    critic = [key for key in state if key.startswith(DISCRIMINATORS)]
    unused = UNUSED.get(name.split('_')[0], [])
    loss = [key for key in state if key.startswith(PERCEPTUAL)]
    assert sorted(key for keys in converted.dropped.values() for key in keys) == sorted([*loss, *unused])

    packed = sum('.in_proj_' in key or '.qkv.' in key for key in state)  # one of theirs is three of ours
    assert len(converted.tensors) == len(state) - len(loss) - len(unused) + 2 * packed

    elements = sum(value.numel() for key, value in state.items() if key not in {*critic, *loss, *unused})
    assert sum(value.numel() for value in tokenizer.state_dict().values()) == elements

    ours = {key.removeprefix('discriminator.'): value for key, value in converted.tensors.items() if 'discriminator.' in key}
    if critic:
        with torch.device('meta'):
            patchgan = VQDiscriminatorRegistry.build(dict(type='PatchGAN'))
        wanted = {key: value.shape for key, value in patchgan.state_dict().items()}
        assert {key: value.shape for key, value in ours.items()} == wanted
    else:
        assert not ours


@pytest.mark.parametrize('name', [name for name in CONVERTERS if not name.startswith(('serezd', 'open_magvit2', 'simvq'))])
def test_architecture_is_the_published_one(name: str) -> None:
    manifest = read_manifest(name)
    config = CONVERTERS[name].convert(state_of(manifest)).tokenizer
    theirs = {**manifest['config'], **manifest['config'].get('ddconfig', {})}
    for side in ('encoder', 'decoder'):
        assert config[side]['width'] == theirs['ch']
        assert config[side]['multipliers'] == theirs['ch_mult']
        attention = not (name.startswith('mar') and side == 'decoder')  # its decoder has none outside of the middle
        assert config[side]['attention_levels'] == ([len(theirs['ch_mult']) - 1] if attention else [])
    if name.startswith('mar'):
        assert config['type'] == 'KLAutoencoder'
        assert config['pre_decode']['in_channels'] == theirs['embed_dim']
        return
    if name.startswith('var'):
        assert config['quantizer']['scales'] == theirs['v_patch_nums']
        assert config['quantizer']['convolutions'] == theirs['share_quant_resi']
        theirs |= {'n_embed': theirs['vocab_size'], 'embed_dim': theirs['z_channels']}
    quantizer = config['quantizer'].get('quantizer', config['quantizer'])
    assert quantizer['codebook_size'] == theirs.get('n_embed', theirs.get('codebook_size'))
    assert quantizer['embedding_dim'] == theirs.get('embed_dim', theirs.get('codebook_embed_dim'))
    assert quantizer.get('normalize', False) == theirs.get('codebook_l2_norm', False)


@pytest.mark.parametrize('kind', ['standard', 'ema', 'gumbel'])
def test_architecture_of_the_study(kind: str) -> None:
    manifest = read_manifest(f'serezd_vqvae_{kind}_256')
    theirs, config = manifest['config'], serezd.convert(state_of(manifest)).tokenizer
    multipliers = theirs['autoencoder']['channel_multipliers']
    for side in ('encoder', 'decoder'):
        assert config[side]['width'] == theirs['autoencoder']['channels']
        assert config[side]['residual_blocks'] == config[side]['refine_blocks'] == theirs['autoencoder']['num_res_blocks']
        assert not config[side]['conv_bias'] and not config[side]['refine_attention']
    assert config['encoder']['multipliers'] == multipliers
    assert config['decoder']['multipliers'] == [1, *multipliers[:-1]]
    assert config['decoder']['stem_multiplier'] == multipliers[-1]
    assert config['quantizer']['codebook_size'] == theirs['quantizer']['num_embeddings']
    assert config['quantizer']['embedding_dim'] == theirs['quantizer']['embedding_dim']
    assert ('update' in config['quantizer']) == (kind == 'ema')
    assert config['quantizer'].get('feature_dim') == (theirs['quantizer']['num_embeddings'] if kind == 'gumbel' else None)


@pytest.mark.parametrize('name', [name for name in CONVERTERS if name.startswith(('open_magvit2', 'simvq'))])
def test_architecture_without_attention(name: str) -> None:
    manifest = read_manifest(name)
    theirs, config = manifest['config'], CONVERTERS[name].convert(state_of(manifest)).tokenizer
    network = theirs['ddconfig']
    for side in ('encoder', 'decoder'):
        assert config[side]['width'] == network['ch']
        assert config[side]['multipliers'] == network['ch_mult']
        assert config[side]['residual_blocks'] == config[side]['refine_blocks'] == network['num_res_blocks']
        assert not config[side]['attention_levels'] and not config[side]['refine_attention'] and not config[side]['conv_bias']
    assert config['decoder'].get('adaptive_norm', False) == name.startswith('open')
    if name.startswith('open'):
        assert 2 ** config['quantizer']['bits'] == theirs['n_embed']
    else:
        assert (config['quantizer']['codebook_size'], config['quantizer']['embedding_dim']) == (theirs['n_e'], theirs['e_dim'])


BEIT2 = ('1x768x12_clip', '3x768x12_clip', '1x768x12_dino')
OF_BEIT2 = ('quantize.embedding.cluster_size', 'quantize.embedding.embed_avg', 'quantize.embedding.initted')


@pytest.mark.parametrize('name', BEIT2)
@pytest.mark.parametrize('with_decoder', [True, False])
def test_every_tensor_of_beit2_maps(name: str, with_decoder: bool) -> None:
    """Strictly both ways; training leaves the teacher in the file."""
    manifest = read_manifest(f'beit2_vqkd_base_decoder_{name}')
    state, theirs = state_of(manifest), manifest['config']
    of_training = [f'{part}.weight' for part in ('teacher_model.visual.conv1', 'scaling_layer', 'loss.head')]
    extra = {key: torch.zeros(1) for key in of_training}
    converted = beitv2.convert({**state, **extra}, with_decoder=with_decoder)
    tokenizer = fit(converted.tokenizer, shapes_of(converted), name)

    left = [] if with_decoder else [key for key in state if key.startswith(('decoder.', 'decode_task_layer.'))]
    assert len(left) == (0 if with_decoder else 4 + 13 * theirs['decoder_depth'] + 2 + 4)
    assert {key for keys in converted.dropped.values() for key in keys} == {*OF_BEIT2, *extra, *left}
    assert len(converted.tensors) == len(state) - len(OF_BEIT2) - len(left)
    elements = sum(value.numel() for key, value in state.items() if key not in {*OF_BEIT2, *left})
    assert sum(value.numel() for value in tokenizer.state_dict().values()) == elements
    if with_decoder:
        assert sum(value.numel() for value in state.values()) == manifest['params']

    config = converted.tokenizer
    assert converted.image_size == config['encoder']['image_size'] == theirs['img_size']
    assert (config['quantizer']['codebook_size'], config['quantizer']['embedding_dim']) == (8192, theirs['code_dim'])
    networks = [(config['encoder'], 'encoder_depth', theirs['code_dim'])]
    networks += [(config['feature_decoder'], 'decoder_depth', theirs['decoder_out_dim'])] if with_decoder else []
    for network, depth, channels in networks:
        assert network['depth'] == theirs[depth] and network['out_channels'] == channels
        assert (network['dim'], network['heads'], network['mlp_ratio']) == (theirs['embed_dim'], theirs['num_heads'], 4)


def test_the_shipped_vqkd_config_is_the_published_architecture() -> None:
    """So the published file gives a run of the config its weights."""
    with torch.device('meta'):
        ours = VQModelRegistry.build(composed('vqkd/clip_8192_imagenet_ddp.py', tiny=False).trainer.model.tokenizer)
    converted = beitv2.convert(state_of(read_manifest('beit2_vqkd_base_decoder_1x768x12_clip')))
    assert shapes_of(converted) == {f'tokenizer.{key}': tuple(value.shape) for key, value in ours.state_dict().items()}
    theirs = fit(converted.tokenizer, shapes_of(converted), 'published')
    for tokenizer in (ours, theirs):
        for network in (tokenizer.encoder, tokenizer.feature_decoder):
            assert {block.heads for block in network.blocks} == {12}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'encoder.pos_embed': torch.zeros(1, 7, 24)}, "'encoder' has positions .*, not of a class token and a square"),
        ({'encoder.blocks.0.attn.k_bias': torch.zeros(24)}, '1 of .* keys are unknown: encoder.blocks.0.attn.k_bias'),
        ({'decoder.blocks.0.mlp.fc1.weight': None}, "no tensor for 'feature_decoder.blocks.0.mlp_in.weight'"),
        ({'encoder.blocks.1.attn.v_bias': None}, "'encoder.blocks.1.qkv.v_bias' is missing"),
        ({}, "'encoder' has 24 channels, so its number of heads is not known"),
    ],
)
def test_what_does_not_add_up_in_a_vqkd_file_is_said(change: dict[str, Tensor | None], message: str) -> None:
    state = {key: value for key, value in {**read_golden('beit2_vqkd').state, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        convert_and_fit(state, beitv2, heads=3 if change else None)
    assert caught.value.hint


def test_moving_averages_take_the_place_of_what_they_average() -> None:
    state = state_of(read_manifest('open_magvit2_pretrain256_16384'))
    own = {f'model_ema.{key.replace(".", "")}': torch.empty_like(value) for key, value in state.items()}
    extra = {'model_ema.decay': torch.zeros(()), 'loss.discriminator.main.0.weight': torch.zeros(3)}
    averages = {id(value) for value in own.values()}
    for ema in (True, False):
        converted = open_magvit2.convert({**state, **own, **extra}, ema=ema)
        assert {id(value) in averages for value in converted.tensors.values()} == {ema}
        assert len(converted.tensors) == len(state)


def test_the_studys_discriminator_comes_along() -> None:
    manifest, critic = read_manifest('serezd_vqvae_standard_256'), read_manifest('serezd_stylegan2_discriminator_256')
    extra = {f'criterion.discriminator.{key}': value for key, value in state_of(critic).items()}
    other = {'criterion.perceptual_loss.lin0.model.1.weight': torch.zeros(1, 4, 1, 1)}
    converted = serezd.convert({**state_of(manifest), **extra, **other})
    assert list(converted.dropped.values()) == [list(other)]
    with torch.device('meta'):
        network = VQDiscriminatorRegistry.build(dict(type='StyleGAN2Discriminator', image_size=256))
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    prefix = 'discriminator.'
    ours = {key.removeprefix(prefix): value.shape for key, value in converted.tensors.items() if key.startswith(prefix)}
    assert ours == wanted
    without = serezd.convert({**state_of(manifest), **extra}, discriminator=False)
    assert not [key for key in without.tensors if key.startswith(prefix)]


def names_of(converter: Any, state: dict[str, Tensor]) -> dict[str, str]:
    """Their key -> ours, for tensors that are only renamed (and so stay the same object)."""
    ours = {id(value): key for key, value in converter.convert(state).tensors.items()}
    return {key: ours[id(value)] for key, value in state.items() if id(value) in ours}


def test_reference_file_of_a_taming_model_gives_what_the_taming_file_gives() -> None:
    """The peer's own list of renamed keys determines equal tensors."""
    manifest = read_manifest('vq_reference_vqgan_f16_1024')
    reference_names = names_of(reference, state_of(manifest))
    source = state_of(read_manifest('taming_vqgan_imagenet_f16_1024'))
    taming_names = names_of(taming, source)
    pairs = [(old, new) for old, new in manifest['renamed_from_taming'].items() if new in reference_names]
    assert len(pairs) > 200
    assert [taming_names[old] for old, _ in pairs] == [reference_names[new] for _, new in pairs]
    assert set(reference.convert(state_of(manifest)).tensors) == set(taming.convert(source).tensors)


def test_packed_attention_is_split_in_the_order_of_torch() -> None:
    """Compared with ``nn.MultiheadAttention``, which defines the packing."""
    from vq.nn.attention import SpatialAttention

    theirs, ours = torch.nn.MultiheadAttention(8, 1), SpatialAttention(8)
    norm = torch.nn.GroupNorm(8, 8, eps=1e-6)
    for parameter in (*theirs.parameters(), *norm.parameters()):
        torch.nn.init.normal_(parameter)
    place = '_encoder._refine.1'
    state = {f'{place}._multihead_attention.{key}': value for key, value in theirs.state_dict().items()}
    state |= {f'{place}._group_norm.{key}': value for key, value in norm.state_dict().items()}
    mapped, _ = map_keys(state, reference.RULES, reference.VOCABULARY)
    ours.load_state_dict({key.removeprefix('encoder.refine.1.'): value for key, value in mapped.items()})

    x = torch.randn(2, 8, 3, 4)
    cells = norm(x).flatten(2).permute(2, 0, 1)
    expected = x + theirs(cells, cells, cells, need_weights=False)[0].permute(1, 2, 0).reshape(x.shape)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


class TestRules:
    VOCABULARY = {'side': {'left': 'l', 'right': 'r'}}

    def test_unknown_keys_are_listed(self) -> None:
        state = {'left.0.weight': torch.zeros(1), 'middle.weight': torch.zeros(1), 'left.x.weight': torch.zeros(1)}
        with pytest.raises(UserError, match=r'2 of 3 keys are unknown: middle.weight, left.x.weight') as caught:
            map_keys(state, [rename('{side}.{i}.{leaf}', '{side}[{i}].{leaf}')], self.VOCABULARY)
        assert caught.value.hint

    def test_dots_are_dots(self) -> None:
        with pytest.raises(UserError, match='unknown: aXb'):
            map_keys({'aXb': torch.zeros(1)}, [rename('a.b', 'c')], {})

    def test_two_keys_for_one_name(self) -> None:
        rules = [rename('a', 'c'), rename('b', 'c')]
        with pytest.raises(UserError, match="'a' and 'b' are both c"):
            map_keys({'a': torch.zeros(1), 'b': torch.zeros(1)}, rules, {})

    def test_first_rule_wins_and_reasons_are_kept(self) -> None:
        rules = [drop('{rest}.steps', 'a counter'), rename('{side}.{leaf}', '{side}.{leaf}'), drop('{rest}', 'the rest')]
        state = {'left.steps': torch.zeros(()), 'right.bias': torch.ones(2), 'other': torch.zeros(1)}
        mapped, dropped = map_keys(state, rules, self.VOCABULARY)
        assert list(mapped) == ['r.bias']
        assert dropped == {'a counter': ['left.steps'], 'the rest': ['other']}

    def test_split_and_reshape(self) -> None:
        packed = torch.arange(24.0).view(6, 4)
        mapped, _ = map_keys({'p': packed}, [split('p', ['a', 'b', 'c'], dims=4)], {})
        assert torch.equal(torch.cat([mapped[name] for name in 'abc'])[:, :, 0, 0], packed)
        mapped, _ = map_keys({'p': mapped['b']}, [rename('p', 'q', dims=2)], {})
        assert torch.equal(mapped['q'], packed[2:4])
        with pytest.raises(UserError, match='does not divide into 5'):
            map_keys({'p': packed}, [split('p', 'abcde')], {})
        with pytest.raises(UserError, match='not a 1x1 convolution'):
            map_keys({'p': torch.zeros(2, 2, 3, 3)}, [rename('p', 'q', dims=2)], {})
        mapped, _ = map_keys({'p': torch.arange(5.0).view(1, 5, 1, 1)}, [rename('p', 'q', dims=1)], {})
        assert torch.equal(mapped['q'], torch.arange(5.0))
        mapped, _ = map_keys({'p': torch.arange(6.0).view(1, 2, 3)}, [rename('p', 'q', dims=2)], {})
        assert torch.equal(mapped['q'], torch.arange(6.0).view(2, 3))
        mapped, _ = map_keys({'p': torch.arange(3.0).view(1, 1, 3)}, [rename('p', 'q', dims=1)], {})
        assert torch.equal(mapped['q'], torch.arange(3.0))
        with pytest.raises(UserError, match='not a vector of channels'):
            map_keys({'p': torch.zeros(1, 2, 3)}, [rename('p', 'q', dims=1)], {})
        with pytest.raises(UserError, match='not a vector of channels'):
            map_keys({'p': torch.zeros(5, 1, 1, 2)}, [rename('p', 'q', dims=1)], {})


class TestArchitecture:
    def test_small_model(self) -> None:
        converted = taming.convert(small_taming(), image_size=16)
        fit(converted.tokenizer, shapes_of(converted), 'small')
        assert converted.tokenizer['encoder']['residual_blocks'] == 1
        assert converted.tokenizer['encoder']['attention_levels'] == []

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            ({'quantize.embedding.weight': None}, "no tensor for 'quantizer.codebook.weight'"),
            ({'quantize.embedding.weight': torch.zeros(4)}, 'K x C is needed'),
            ({'encoder.down.1.block.0.conv1.weight': torch.zeros(12, 8, 3, 3)}, 'not a multiple of the 8'),
            ({'decoder.up.1.block.1.conv1.weight': None}, "'decoder.levels.0.blocks.1.conv1.weight' is missing"),
            ({'quant_conv.weight': torch.zeros(5, 4, 1, 1)}, 'post_encode joins 4 to 5 channels'),
            ({'decoder.up.1.block.2.conv1.bias': torch.zeros(8)}, r'levels have \[2, 3\] residual blocks'),
            ({'model_ema.decay': torch.zeros(())}, '1 of .* keys are unknown: model_ema.decay'),
            ({'loss.discriminator.head.0.weight': torch.zeros(3)}, 'discriminator'),
        ],
    )
    def test_what_does_not_add_up_is_said(self, change: dict[str, Tensor | None], message: str) -> None:
        state = {key: value for key, value in {**small_taming(), **change}.items() if value is not None}
        with pytest.raises(UserError, match=message) as caught:
            convert_and_fit(state)
        assert caught.value.hint

    def test_image_size_has_to_divide_into_cells(self) -> None:
        with pytest.raises(UserError, match='image_size is 17, and the encoder makes cells of 2 pixels'):
            taming.convert(small_taming(), image_size=17)

    @pytest.mark.parametrize('scales', [(1, 2, 4), ()])
    def test_scales_that_var_was_not_trained_with(self, scales: tuple[int, ...]) -> None:
        with pytest.raises(UserError, match=f'{len(scales)} scales are given, and the model was trained with 10') as caught:
            var.convert(state_of(read_manifest('var_vqvae_ch160v4096z32')), scales=scales)
        assert 'scales' in caught.value.hint

    def test_a_discrete_model_is_no_kl_autoencoder(self) -> None:
        state = {key: value for key, value in small_taming().items() if not key.startswith('quantize.')}
        with pytest.raises(UserError, match='encodes to 6 channels and decodes from 6'):
            mar_kl16.convert(state)

    def test_legacy_says_which_term_beta_weighs(self) -> None:
        for legacy, weights in ((True, (0.5, 1.0)), (False, (1.0, 0.5))):
            quantizer = taming.convert(small_taming(), legacy=legacy, beta=0.5).tokenizer['quantizer']
            assert (quantizer['codebook_weight'], quantizer['commitment_weight']) == weights

    def test_a_discriminator_can_be_left_out(self) -> None:
        state = {**small_taming(), 'loss.discriminator.whatever.weight': torch.zeros(3)}
        converted = taming.convert(state, discriminator=False)
        assert converted.dropped == {'discriminator: left out by an option': ['loss.discriminator.whatever.weight']}
