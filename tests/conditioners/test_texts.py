"""Text encoders against the packages they come from, with random weights; their files, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.denoisers.test_unet import shaken
from vq.conditioners.text import TextConditioner
from vq.conditioners.texts.bert import BERTText
from vq.conditioners.texts.clip import CLIPText, OpenCLIPText
from vq.conditioners.texts.tokens import Tokenized
from vq.core.conditions import Condition
from vq.core.errors import ConfigError, UserError
from vq.interfaces import Conditioned, Conditioner, TextEncoder

SMALL = dict(dim=16, heads=2, length=12, vocabulary=257, tokenizer='bytes')
TEXTS = ['a boat', '', 'three, seven and nine']


def encoder(kind: type = CLIPText, depth: int = 1) -> TextEncoder:
    return shaken(kind(**SMALL, depth=depth))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def ids_of(part: CLIPText | BERTText) -> Tensor:
    return part.tokenized(TEXTS, torch.device('cpu'))


def test_bytes_are_cut_and_filled_up() -> None:
    ids = Tokenized('bytes', (), print, 4, 257, padding=0)(['abcdef', 'é'], torch.device('cpu'))
    assert ids.tolist() == [[98, 99, 100, 101], [196, 170, 0, 0]]
    with pytest.raises(ConfigError, match='the vocabulary has 256 entries'):
        Tokenized('bytes', (), print, 4, 256, padding=0)


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['transformers', 'compvis', 'openai'])
def test_clip_reads_files_of_all_layouts(layout: str) -> None:
    """Of open_clip's network, whose files have the names of OpenAI's."""
    from open_clip.transformer import QuickGELU, TextTransformer

    theirs = shaken(
        TextTransformer(12, 257, width=16, heads=2, layers=2, output_dim=8, act_layer=QuickGELU, output_tokens=True)
    )
    ours, state = CLIPText(**SMALL, depth=2), theirs.state_dict()
    if layout == 'transformers':
        ours.fill(state, 'first')
        state = {f'text_model.{key}': value for key, value in ours.network.state_dict().items()}
        state['text_model.embeddings.position_ids'] = torch.arange(12)[None]
        ours = CLIPText(**SMALL, depth=2)
    elif layout == 'compvis':
        state = {f'cond_stage_model.model.{key}': value for key, value in state.items()} | {'betas': torch.zeros(3)}
    ours.fill(state, 'a file')
    ids = ids_of(ours)
    close(ours(TEXTS)[0], theirs.ln_final(last_of(theirs, ids)))


def last_of(theirs: torch.nn.Module, ids: Tensor) -> Tensor:
    x = theirs.token_embedding(ids) + theirs.positional_embedding
    return theirs.transformer(x, attn_mask=theirs.attn_mask)


@pytest.mark.slow
def test_openclip_stops_before_the_last_layer() -> None:
    """As Stable Diffusion 2: the file has one layer more, and the final norm is applied."""
    from open_clip.transformer import TextTransformer

    theirs = shaken(TextTransformer(12, 257, width=16, heads=2, layers=3, output_dim=8))
    ours = OpenCLIPText(**SMALL, depth=2)
    ours.fill(theirs.state_dict(), 'a file')
    ids = ids_of(ours)
    theirs.transformer.resblocks = theirs.transformer.resblocks[:2]
    close(ours(TEXTS)[0], theirs.ln_final(last_of(theirs, ids)))
    assert (ids[1] == 0).all() and ours.dim == 16


def bert_of_compvis(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of diffusers' class under the names of CompVis' checkpoints, as diffusers' script of conversion pairs them."""
    words = {
        'self_attn_layer_norm': (0, '0'),
        'self_attn.q_proj': (0, '1.to_q'),
        'self_attn.k_proj': (0, '1.to_k'),
        'self_attn.v_proj': (0, '1.to_v'),
        'self_attn.out_proj': (0, '1.to_out'),
        'final_layer_norm': (1, '0'),
        'fc1': (1, '1.net.0.0'),
        'fc2': (1, '1.net.2'),
    }
    ends = {'embed_tokens': 'token_emb', 'embed_positions': 'pos_emb.emb', 'layer_norm': 'norm'}
    found = {'model.diffusion_model.out.2.bias': torch.zeros(4), 'cond_stage_model.transformer.to_logits.bias': torch.zeros(9)}
    for key, value in state.items():
        parts = key.removeprefix('model.').split('.')
        name, leaf = '.'.join(parts[:-1]), parts[-1]
        if parts[0] == 'layers':
            half, inner = words['.'.join(parts[2:-1])]
            name = f'attn_layers.layers.{2 * int(parts[1]) + half}.{inner}'
        elif name in ends:
            name = ends[name]
        else:
            continue
        found[f'cond_stage_model.transformer.{name}.{leaf}'] = value
    return found


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['diffusers', 'compvis'])
def test_bert_equals_that_of_diffusers(layout: str) -> None:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    sizes = dict(vocab_size=257, max_position_embeddings=12, encoder_layers=2, encoder_ffn_dim=64, encoder_attention_heads=2)
    theirs = shaken(LDMBertModel(LDMBertConfig(**sizes, head_dim=6, d_model=16)))
    state = {key: value for key, value in theirs.state_dict().items() if key.startswith('model.')}
    ours = BERTText(**SMALL, depth=2, head_dim=6)
    ours.fill(bert_of_compvis(state) if layout == 'compvis' else dict(theirs.state_dict()), 'a file')
    close(ours(TEXTS)[0], theirs.model(ids_of(ours))[0])


def test_a_file_that_does_not_fit_says_so() -> None:
    state = encoder(depth=2).network.state_dict()
    with pytest.raises(UserError, match=r'a file is not the CLIPText of 16 channels\n.*encoder.layers.1'):
        CLIPText(**SMALL, depth=2).fill({k: v for k, v in state.items() if 'layers.1.mlp' not in k}, 'a file')
    with pytest.raises(ConfigError, match='heads that divide the channels'):
        CLIPText(dim=10, heads=3)


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's vocabulary in the files of transformers, from the copy in open_clip; and a small one of BERT."""
    import open_clip.tokenizer as theirs

    folder = tmp_path_factory.mktemp('pretrained')
    (folder / 'clip').mkdir()
    (folder / 'bert').mkdir()
    known = theirs.SimpleTokenizer()
    names = {'<start_of_text>': '<|startoftext|>', '<end_of_text>': '<|endoftext|>'}
    words = {names.get(word, word): number for word, number in known.encoder.items()}
    (folder / 'clip/vocab.json').write_text(json.dumps(words))
    with gzip.open(theirs.default_bpe()) as file:
        lines = file.read().decode().split('\n')[1 : 49152 - 256 - 2 + 1]
    (folder / 'clip/merges.txt').write_text('\n'.join(['#version: 0.2', *lines]))
    (folder / 'bert/vocab.txt').write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'boat', '##s', ',']))
    return folder


@pytest.mark.slow
def test_tokens_of_clip_are_those_of_openclip(vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    monkeypatch.setenv('VQ_PRETRAINED', str(vocabulary))
    texts = ['A photo of 2 dogs, sleeping!', '', 'word ' * 99]
    expected = open_clip.get_tokenizer('ViT-H-14')(texts)
    sizes = dict(dim=4, depth=1, heads=1, tokenizer='clip')
    assert torch.equal(OpenCLIPText(**sizes).tokenized(texts, torch.device('cpu')), expected)
    filled = CLIPText(**sizes).tokenized(texts, torch.device('cpu'))
    assert torch.equal(torch.where(expected == 0, 49407, expected), filled)  # with the token of the end


def test_tokens_of_bert(vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('VQ_PRETRAINED', str(vocabulary))
    part = BERTText(**SMALL | dict(tokenizer='bert', length=6), depth=1)
    assert part.tokenized(['A boats', 'a, a, a, a'], torch.device('cpu')).tolist() == [[2, 5, 6, 7, 3, 0], [2, 5, 8, 5, 8, 3]]
    small = BERTText(**SMALL | dict(tokenizer='bert', length=6, vocabulary=5), depth=1)
    with pytest.raises(UserError, match='has a token 6, and the vocabulary of the network 5'):
        small.tokenized(['boat'], torch.device('cpu'))
    monkeypatch.setenv('VQ_PRETRAINED', str(vocabulary / 'nowhere'))
    with pytest.raises(UserError, match=r'vocab\.txt is missing'):
        BERTText(**SMALL | dict(tokenizer='bert'), depth=1).tokenized(['boat'], torch.device('cpu'))


# the conditioner


def test_rows_without_a_condition_have_the_null_text() -> None:
    part = TextConditioner(encoder())
    read, none = part.encoder(TEXTS)[0], part.encoder([''])[0]
    found = part(Condition(text=TEXTS, null=torch.tensor([True, False, False])), 3).sequence
    close(found, torch.cat([none, read[1:]]))
    for asked in (None, Condition(torch.zeros(2).long())):
        close(part(asked, 2).sequence, none.expand(2, -1, -1))
    away = part(Condition(text=TEXTS, negative=['a', 'b', 'c'], null=torch.tensor([True, False, True])), 3).sequence
    close(away[[0, 2]], part.encoder(['a', 'c'])[0])
    close(away[1], read[1])


def test_it_is_frozen_and_fits_its_denoiser() -> None:
    part = TextConditioner(encoder(), sequence_dim=16).train()
    assert not part.encoder.training and not part(Condition(text=TEXTS), 3).sequence.requires_grad
    with pytest.raises(ConfigError, match='texts are of 16 channels, and the denoiser attends to sequences of 12'):
        TextConditioner(encoder(), sequence_dim=12)
    assert isinstance(part, Conditioner) and isinstance(part(None, 1), Conditioned)


def test_training_drops_texts_at_their_rate() -> None:
    """Over 10,000 rows."""
    part, rows = TextConditioner(encoder(), drop=0.3).train(), 10_000
    one = Condition(text=['boat'] * rows)
    given = part.dropped(one, torch.rand(rows, generator=torch.Generator().manual_seed(0)))
    assert given is not None and abs(given.null.float().mean() - 0.3) < 0.015
    assert part.eval().dropped(one, torch.zeros(rows)) is one
