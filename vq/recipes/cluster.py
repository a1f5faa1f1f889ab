"""Cluster: the features of a frozen network that understands images, grouped around codes."""

from __future__ import annotations

from typing import Annotated

from vq.core.recipe import Config, Given, merge, recipe
from vq.recipes.data import data, photo_data
from vq.recipes.parts import TINY_CODES, code_sizes, sized
from vq.recipes.strategy import strategy
from vq.recipes.teachers import teacher
from vq.recipes.vqkd import DIGITS, OFTEN, feature_runner


@recipe(teacher, feature_runner, code_sizes, data, strategy, hides=('embedding_dim',))
def cluster(
    given: Given,
    *,
    cell: Annotated[int, 'pixels a side of a token; images are resized to give the teacher one patch for each'] = 16,
    anchor: Annotated[str, 'what unused codes move to: nearest, multinomial or cached'] = 'nearest',
    decay: Annotated[float, 'decay of the running usage of codes'] = 0.99,
    lr: Annotated[float, 'learning rate of Adam'] = 5.4e-5,
) -> Config:
    """Cluster (Wang et al. 2024): a frozen teacher as encoder, a codebook as wide as its features, and nothing else to train.

        image x -> teacher T -> nearest code c_k of T(x) (cosine), cell by cell;  loss mse(c_k, sg(T(x)))

    Codes that are hardly used move to features of the batch, as in CVQ-VAE.
    """
    chosen = teacher(given, teacher_layers='last')
    update = dict(type='CVQUpdate', anchor=anchor, decay=decay)
    codes = dict(type='VectorQuantizer', embedding_dim=chosen.width, distance='cosine', commitment_weight=0.0, update=update)
    tokenizer = dict(
        type='Cluster',
        encoder=dict(type='TeacherEncoder', teacher=chosen.part, layers=chosen.layers, downsampling=cell),
        quantizer=sized(given, codes, codebook_size=8192),
    )
    small = dict(
        encoder=dict(teacher=chosen.tiny, downsampling=cell if 32 % cell == 0 else 16),
        quantizer=dict(TINY_CODES, embedding_dim=chosen.tiny_width),
    )
    adam = dict(type='Adam', lr=lr, betas=(0.5, 0.9))
    return merge(
        photo_data(given, batch_size=256, num_workers=10),
        feature_runner(
            given,
            dict(type='FeatureTokenization', tokenizer=tokenizer),
            adam,
            dict(model=dict(tokenizer=small)),
            iters=100_000,
        ),
    )


@recipe(cluster)
def digits_cluster(given: Given) -> Config:
    """Cluster on handwritten digits, 4 x 4 = 16 tokens of 256 codes: the teacher is a classifier of digits."""
    return merge(cluster(given, cell=8, lr=1e-3, **DIGITS), OFTEN)
