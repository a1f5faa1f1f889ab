"""Datasets of tokens that a tokenizer wrote once: a generator trains on them without reading images."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from pathlib import Path

from vq.core.errors import UserError, listing
from vq.data.remote_root import place
from vq.interfaces import Dataset, Sample
from vq.io.manifest import NAME, read_manifest
from vq.io.shards import ShardSet
from vq.registries import VQDatasetRegistry


@VQDatasetRegistry.register_()
class TokenDataset(Dataset):
    """The samples of token shards: tokens (*tokens.shape), category, id. They have no image.

    - ``source``: the image dataset. If the shards do not exist yet, TokensCallback writes them from it before training.
    - ``folder``: the folder of the shards, or the output of ``vq.tasks.image_tokenization.tokenize``, which contains tokens/;
      a path or an address.
      None: a folder inside the run's folder, so that each run has its own shards.
    - ``random_variant``: draw one of an image's variants (such as its mirror image) each time; False: take the first.
    - ``assume_tokenizer``: take shards that name no tokenizer as made by that of the model. Imported ones can be such.
    """

    def __init__(
        self,
        source: Dataset | None = None,
        folder: str | None = None,
        random_variant: bool = True,
        assume_tokenizer: bool = False,
    ) -> None:
        if source is None and folder is None:
            raise UserError('TokenDataset has neither shards nor images', 'Set folder, source, or both.')
        self.source, self.random_variant, self.assume_tokenizer = source, random_variant, assume_tokenizer
        self.folder = None if folder is None else place(folder)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.source.name if self.source is not None else str(self.shards.manifest.producer.get('dataset', 'tokens'))

    @property
    def split(self) -> str:  # type: ignore[override]
        return self.source.split if self.source is not None else str(self.shards.manifest.producer.get('split', ''))

    @property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        return None if self.source is None else self.source.categories

    def place(self) -> Path | None:
        """The folder of the shards, whether it exists or not."""
        if self.folder is None or (self.folder / NAME).is_file() or not (self.folder / 'tokens').is_dir():
            return self.folder
        return self.folder / 'tokens'

    @functools.cached_property
    def shards(self) -> ShardSet:
        folder = self.place()
        if folder is None or not (folder / NAME).is_file():
            raise UserError(
                f'there are no token shards in {self.folder or "the folder of the run"}',
                'Write them with vq.tasks.image_tokenization.tokenize, or give the dataset its images as source and the '
                'trainer a TokensCallback.',
            )
        shards = ShardSet(folder)
        missing = [name for name in ('tokens', 'category') if name not in shards.manifest.columns]
        if missing:
            raise UserError(
                f'{folder} holds {shards.manifest.kind} without {listing(missing)}', 'Give a folder of token shards.'
            )
        return shards

    def is_there(self) -> bool:
        folder = self.place()
        return folder is not None and (folder / NAME).is_file() and read_manifest(folder).complete

    def __len__(self) -> int:
        if self.source is not None and 'shards' not in self.__dict__ and not self.is_there():
            return len(self.source)
        return len(self.shards)

    def id_of(self, index: int) -> str:
        found: str = self.shards[index]['id']
        return found

    def load(self, index: int, stream: random.Random) -> Sample:
        row = self.shards[index]
        tokens = row['tokens']  # (variants, *tokens.shape)
        variant = int(stream.random() * len(tokens)) if self.random_variant and len(tokens) > 1 else 0
        category = int(row['category'])
        return self.make_sample(id=row['id'], tokens=tokens[variant], category=None if category < 0 else category)

    def fingerprint(self) -> str:
        return self.shards.manifest.fingerprint()
