"""Writers of tokens and latents: killed at any moment and started again on any number of ranks, the files are the same."""

from __future__ import annotations

import functools
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.io.killing import Killer
from tests.ranks import GlooPool
from vq.core import collectives
from vq.core.errors import UserError
from vq.data.datasets.digits import DigitsDataset
from vq.data.loading import LoaderSettings
from vq.decoders import ConvDecoder
from vq.encoders import ConvEncoder
from vq.interfaces import Task
from vq.io.latent_files import check_exportable, images_of
from vq.io.shards import ShardSet
from vq.quantizers import VectorQuantizer
from vq.runners.context import RunContext
from vq.runners.latent_writer import LatentWriter
from vq.runners.split_writer import SplitWriter
from vq.runners.tokenizer import TokenWriter
from vq.strategies import AutoStrategy
from vq.tokenizers import VQGAN, KLAutoencoder

SHAPE: dict[str, Any] = dict(width=8, multipliers=(1, 1), residual_blocks=1, attention_levels=(), refine=False, norm_groups=4)
SIZE = 7  # samples per shard: 26 shards of 180 digits, 13 for each of two ranks


def tokenizer_of(kind: str, seed: int = 0) -> KLAutoencoder | VQGAN:
    torch.manual_seed(seed)
    encoder, decoder = ConvEncoder(out_channels=8, **SHAPE), functools.partial(ConvDecoder, **SHAPE)
    if kind == 'latents':
        return KLAutoencoder(encoder=encoder, decoder=decoder(in_channels=4))
    return VQGAN(encoder=encoder, quantizer=VectorQuantizer(codebook_size=16, embedding_dim=8), decoder=decoder(in_channels=8))


def writer_of(folder: Path, kind: str, of: str | None = None, **settings: Any) -> SplitWriter:
    task = Task()
    task.tokenizer = tokenizer_of(of or kind)
    dataset = DigitsDataset('validation', image_size=settings.pop('image_size', 16))
    made = {'tokens': TokenWriter, 'latents': LatentWriter}[kind]
    given = {'shard_size': SIZE, 'variants': ('center', 'flip'), **settings}
    writer = made(task, dataset, LoaderSettings(3), AutoStrategy(), **given)
    writer.bind(RunContext('test', folder, meta={'tokens_hash': 'abc'}))
    return writer


class OneOf(collectives.SingleProcess):
    """A rank that does not wait for the others: they run one after the other, the first one last."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def write_on_rank(folder: Path, kind: str, rank: int, world: int) -> None:
    writer = writer_of(folder, kind)
    writer.setup()
    collectives.install(OneOf(rank, world))
    try:
        writer.evaluate()
    finally:
        collectives.install(None)
        writer.close()


def write(folder: str, kind: str) -> dict[str, Any]:
    return writer_of(Path(folder), kind).run()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['tokens', 'latents'])
def test_killed_on_two_ranks_and_restarted_on_any_number_the_files_are_the_same(
    kind: str, tmp_path: Path, gloo_pool: GlooPool
) -> None:
    whole, half = tmp_path / 'whole', tmp_path / 'half'
    assert write(str(whole), kind)['samples'] == 180
    with Killer() as killer:
        for rank in (0, 1):  # about 11 changes a shard: in the middle of the fifth
            assert not killer.run(functools.partial(write_on_rank, half, kind, rank, 2), 50 + rank)
    left = {name for name in contents(half / kind) if name.startswith('shard')}
    assert 6 <= len(left) <= 14, left
    for world in (1, 2, 3):
        place = tmp_path / str(world)
        shutil.copytree(half, place)
        if world == 2:
            gloo_pool.run(write, str(place), kind)
        else:
            for rank in reversed(range(world)):
                write_on_rank(place, kind, rank, world)
        assert contents(place / kind) == contents(whole / kind)
    source = DigitsDataset('validation')
    assert ShardSet(whole / kind, verify=True).ids() == [source.id_of(index) for index in range(180)]
    victim = whole / kind / 'shard-00011-of-00026.safetensors'
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    with pytest.raises(UserError, match=f'{victim.name} is damaged: its SHA-256'):
        ShardSet(whole / kind)[11 * SIZE]
    assert write(str(whole), kind)[{'tokens': 'tokenised_now', 'latents': 'encoded_now'}[kind]] == SIZE
    assert contents(whole / kind) == contents(place / kind)


@pytest.mark.slow
def test_statistics_are_those_of_all_latents_whatever_the_shards(tmp_path: Path) -> None:
    found = []
    for size in (50, 180):
        writer_of(tmp_path / str(size), 'latents', shard_size=size, dtype='bfloat16').run()
        shards = ShardSet(tmp_path / str(size) / 'latents')
        found.append(shards.manifest.notes['statistics'])
    z = np.stack([row['mean'][0] for row in shards]).astype(np.float64)  # (n, C, h, w)
    for statistics in found:
        assert statistics['count'] == 180 * 8 * 8
        np.testing.assert_allclose(statistics['mean'], z.mean((0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(statistics['deviation'], z.std((0, 2, 3)), rtol=1e-12)


@pytest.mark.slow
def test_without_a_gaussian_there_are_the_code_vectors_alone(tmp_path: Path) -> None:
    writer_of(tmp_path, 'latents', of='tokens', shard_size=180).run()
    shards, tokenizer = ShardSet(tmp_path / 'latents'), tokenizer_of('tokens').eval()
    assert 'logvar' not in shards.manifest.columns
    image = torch.from_numpy(DigitsDataset('validation', image_size=16).read(4)).permute(2, 0, 1)[None] / 127.5 - 1
    for variant, view in enumerate((image, image.flip(-1))):
        wanted = tokenizer.lookup(tokenizer.tokenize(view))[0]
        torch.testing.assert_close(torch.from_numpy(shards[4]['mean'][variant].copy()), wanted)
    with pytest.raises(UserError, match='have no variance, and files of the format pt need one'):
        check_exportable(shards, 'pt')
    check_exportable(shards, 'npz')
    (name, data), *_ = images_of(shards, range(4, 5), 'npz', [])
    found = np.load(io.BytesIO(data), allow_pickle=False)
    assert name.endswith('.npz') and np.array_equal(found['latent'], shards[4]['mean'][0])
    assert found['condition'] == shards[4]['category'] and str(found['id']) == shards[4]['id']


def test_only_some_classes_are_written(tmp_path: Path) -> None:
    writer_of(tmp_path, 'latents', classes=(7, 3), variants=('center',), image_size=32).run()
    shards = ShardSet(tmp_path / 'latents')
    categories = shards.column('category')[:]
    assert set(categories) == {3, 7} and len(shards) == 36
    assert shards.manifest.producer['classes'] == [3, 7] and shards.manifest.producer['image_size'] == 32
    assert shards[0]['logvar'].shape == (1, 4, 16, 16)
    with pytest.raises(UserError, match="'classes' is"):
        writer_of(tmp_path, 'latents', classes=(7,), variants=('center',), image_size=32).run()
