"""Draw many images in fixed batches, so that ranks and restarts change no byte."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vq.core import collectives
from vq.core.drawing import Drawn, Wanted
from vq.core.errors import ConfigError, UserError
from vq.core.records import to_uint8
from vq.data.decode import BadImage, decode_image
from vq.data.loading import LoaderSettings
from vq.interfaces import Dataset, Metric, Strategy, Task
from vq.interfaces.conditions import Asked
from vq.interfaces.drawing import Draws, draws_images
from vq.io import atomic
from vq.io.adm import write_samples
from vq.io.pictures import grid, png_bytes, save_png
from vq.io.ranks import run_on_all_ranks
from vq.io.shards import ShardRange, ShardSet, ShardWriter
from vq.registries import VQSMRunnerRegistry
from vq.runners.named import Callbacks
from vq.runners.progress import ProgressBar
from vq.runners.protocol import ValidatorLike
from vq.runners.validator import Validator

ROWS = 8  # images of history.png
NOTED = 1000  # texts and layouts that the manifest records as they are
WRITERS = 4  # threads that compress PNG files while the next batch is drawn


@VQSMRunnerRegistry.register_('Sampler')
class ImageSampler(Validator):
    """Draws ``samples`` images: image i is of class ``classes[i mod n]`` (all classes by default, so they are balanced).

    Batch k has the images k B to k B + B - 1 and is drawn by rank k mod ranks. The last batch is drawn whole, and cut. Each
    image has its own random numbers, derived from the seed and its number. So with the same batch size and number of
    threads, the same command gives the same bytes for any number of ranks and after any interruption.

    In ``work_dir``: ``shards/`` (tokens or latents, and classes, from which a restart continues), ``grid.png``,
    ``history.png`` if the task records states on the way, and ``samples/000123.png`` or ``samples.npz`` (ADM's layout, classes
    in arr_1). A batch with a missing picture is drawn again.
    """

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        metrics: dict[str, Metric] | None = None,
        callbacks: Callbacks[ValidatorLike] = None,
        samples: int = 64,
        batch_size: int = 64,
        classes: tuple[int, ...] | None = None,
        format: Literal['png', 'npz'] = 'png',
    ) -> None:
        super().__init__(model, dataset, dataloader, strategy, metrics, callbacks)
        if samples < 1 or batch_size < 1 or format not in ('png', 'npz'):
            raise ConfigError(
                f'samples is {samples}, batch_size {batch_size}, format {format!r}',
                "Draw 1 or more, in batches of 1 or more, as 'png' or 'npz'.",
            )
        self.samples, self.batch_size, self.format = samples, batch_size, format
        self.asked = Asked(classes)
        self.description: dict[str, Any] = {}  # how images are drawn: a restart continues only shards with the same one

    def about(self) -> dict[str, str]:
        chosen = self.asked.classes
        classes = '' if chosen is None else f', of the classes {", ".join(map(str, chosen))} in turn'
        return {'images': f'{self.samples:,} to draw, in batches of {self.batch_size}{classes}', 'format': self.format}

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Draw the missing images. The results count all images, and those drawn now."""
        self.model.eval()
        if not draws_images(self.model):
            raise UserError(
                f'{type(self.model).__name__} draws no images', 'Give the config of a generator, such as configs/digits/ar.py.'
            )
        self.task: Draws = self.model
        started = time.perf_counter()
        writer = ShardWriter(
            self.work_dir / 'shards',
            kind='samples',
            total=self.samples,
            shard_size=self.batch_size,
            producer={**self.description, **self._asked(), 'seed': self.context.seed, 'format': self.format},
        )
        pending = self._pending(writer)
        count = sum(map(len, pending))
        with ProgressBar('drawing', count, 'images', visible=collectives.is_main()) as bar:
            self._draw_all(writer, pending, bar)
        collectives.barrier()
        run_on_all_ranks(lambda: self._finish(writer) if collectives.is_main() else None, 'completing the samples')
        seconds = time.perf_counter() - started
        drawn = int(sum(collectives.all_gather_object(count)))
        return {
            'samples': self.samples,
            'drawn_now': drawn,
            'folder': str(self.work_dir / ('samples' if self.format == 'png' else 'samples.npz')),
            'seconds': round(seconds, 3),
            'images_per_second': round(drawn / max(seconds, 1e-9), 2),
        }

    def _pending(self, writer: ShardWriter) -> list[ShardRange]:
        """The batches that this rank has to draw: those without a shard, and those with a picture that is missing."""
        rank, world = collectives.rank(), collectives.size()
        pending = {part.index: part for part in writer.pending(rank, world)}
        if self.format == 'png':
            folder = self.work_dir / 'samples'
            there = {entry.name for entry in os.scandir(folder) if entry.stat().st_size} if folder.is_dir() else set()
            for part in writer.ranges():
                if part.index % world == rank and any(name_of(number) not in there for number in range(part.start, part.stop)):
                    pending[part.index] = part
        return [pending[index] for index in sorted(pending)]

    def _asked(self) -> dict[str, Any]:
        """What images are asked for, as the manifest records it: a restart continues only shards of the same."""
        self.task.condition(self.asked, [0], torch.device('cpu'))  # an error before the first batch
        known = self.task.classes
        chosen = ([*range(known)] if known else None) if self.asked.classes is None else [*self.asked.classes]
        texts = {'text': self.asked.text, 'negative_text': self.asked.negative}
        more: dict[str, Any] = {name: noted([*text]) for name, text in texts.items() if text is not None}
        layout = self.asked.layout
        if layout is not None and layout.boxes is not None and layout.box_categories is not None:
            rows = [layout.boxes.tolist(), layout.box_categories.tolist()]
            more['layout'] = rows if len(layout) <= NOTED else noted([*zip(*rows, strict=True)])
        return {'classes': chosen, **more}

    def _wanted(self, part: ShardRange) -> Wanted:
        """The whole batch, even if fewer images are left to draw."""
        ids = [part.index * self.batch_size + place for place in range(self.batch_size)]
        return Wanted(ids, self.context.seed, self.task.condition(self.asked, ids, self.strategy.device))

    def _draw_all(self, writer: ShardWriter, pending: list[ShardRange], bar: ProgressBar) -> None:
        """While a batch is drawn, threads write the previous batch. On a GPU the previous batch is also decoded meanwhile."""
        with ThreadPoolExecutor(WRITERS) as pool, ThreadPoolExecutor(1) as keeper:
            last: Future[None] | None = None
            for part in pending:
                wanted = self._wanted(part)
                with self.strategy.autocast():
                    drawn = self.task.draw(wanted)
                if last is not None:
                    last.result()  # at most one batch is being written; its errors are raised here
                image, ready = self._decode(drawn)
                last = keeper.submit(self._keep, writer, part, wanted, drawn, image, ready, pool)
                bar.advance(len(part))
            if last is not None:
                last.result()

    def _decode(self, drawn: Drawn) -> tuple[Tensor, torch.cuda.Event | None]:
        """uint8 images (B, 3, H, W). On CUDA, a side stream decodes them, and the event tells when they are on the host."""
        device = self.strategy.device
        if device.type != 'cuda':
            with self.strategy.autocast():
                return to_uint8(self._images(drawn)), None
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side), self.strategy.autocast():
            image = to_uint8(self._images(drawn)).to('cpu', non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(side)  # type: ignore[no-untyped-call]
        for value in (drawn.tokens, drawn.latents):
            if value is not None:
                value.record_stream(side)
        return image, done

    def _images(self, drawn: Drawn) -> Tensor:
        found = drawn.images()
        if found is None:
            raise UserError(
                f'{type(self.model).__name__} draws no pixels: its tokenizer has no decoder',
                'Train a decoder for the tokenizer: see docs/reconstruction.md.',
            )
        return found

    def _keep(
        self,
        writer: ShardWriter,
        part: ShardRange,
        wanted: Wanted,
        drawn: Drawn,
        image: Tensor,
        ready: torch.cuda.Event | None,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Write the pictures first, then the shard: a shard means that its pictures are written."""
        if ready is not None:
            ready.synchronize()
        count = len(part)
        columns: dict[str, Any] = {}
        if drawn.tokens is not None:
            narrow = np.uint16 if max(self.task.codebooks) <= 1 << 16 else np.uint32
            columns['tokens'] = drawn.tokens[:count].cpu().numpy().astype(narrow)
        if drawn.latents is not None:
            columns['latent'] = drawn.latents[:count].float().cpu().numpy()
        if wanted.category is not None:
            columns['category'] = wanted.category[:count].cpu().numpy()
        pictures = image[:count].cpu()
        if drawn.history and part.index == 0:
            self._show_history(drawn, pictures)
        if self.format == 'png':
            folder = self.work_dir / 'samples'
            folder.mkdir(parents=True, exist_ok=True)
            places = [folder / name_of(number) for number in wanted.ids[:count]]
            for done in [pool.submit(_write_png, place, picture) for place, picture in zip(places, pictures, strict=True)]:
                done.result()
        else:
            columns['image'] = pictures.permute(0, 2, 3, 1).contiguous().numpy()
        writer.write(part, columns, [str(number) for number in wanted.ids[:count]])

    def _show_history(self, drawn: Drawn, pictures: Tensor) -> None:
        """``history.png``: a row for each of the first images, its states from noise to data; the last one is the image."""
        rows = min(len(pictures), ROWS)
        states = [to_uint8(state[:rows]).cpu() for state in drawn.history[:-1]] + [pictures[:rows]]
        shown = torch.stack(states, dim=1).flatten(0, 1)
        save_png(self.work_dir / 'history.png', grid(shown, columns=len(states)))

    def _finish(self, writer: ShardWriter) -> None:
        writer.finish()
        shards = ShardSet(self.work_dir / 'shards')
        if self.format == 'npz':
            images = shards.column('image')
            more = {'arr_1': np.asarray(shards.column('category')[:])} if 'category' in shards.manifest.columns else None
            write_samples(self.work_dir / 'samples.npz', (images[row] for row in range(len(images))), images.shape, more)
        first = list(self._first(shards, 100))
        save_png(self.work_dir / 'grid.png', grid(torch.stack(first), columns=min(10, len(first))))

    def _first(self, shards: ShardSet, most: int) -> Iterator[Tensor]:
        for number in range(min(most, self.samples)):
            if self.format == 'npz':
                picture = np.array(shards.column('image')[number])
            else:
                picture = np.array(_read_png(self.work_dir / 'samples' / name_of(number)))
            yield torch.from_numpy(picture).permute(2, 0, 1)


def noted(rows: list[Any]) -> Any:
    """The rows, or of many ones their SHA-256, so that manifests stay small."""
    if len(rows) <= NOTED:
        return rows
    return {'rows': len(rows), 'sha256': hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def name_of(number: int) -> str:
    return f'{number:06d}.png'


def _read_png(place: Path) -> np.ndarray:
    try:
        return decode_image(place)
    except BadImage as error:
        raise UserError(f'picture {error}', 'Delete it, and run the same command again: it is drawn again.') from error


def _write_png(place: Path, picture: Tensor) -> None:
    atomic.write_bytes(place, png_bytes(picture))
