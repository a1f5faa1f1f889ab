"""A folder of pictures as people keep them: drawn photographs of a few classes, in many formats, with broken files between.

A class has a structure that a network can learn (a rocket is tall and stands in the sky, a boat lies on water), while
colours, places, sizes, backgrounds and noise are random. Everything depends on the seed alone.
"""

from __future__ import annotations

import dataclasses
import io
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]
CLASSES = ('rocket', 'boat', 'cat', 'tree')
CANVAS = 320  # a picture is drawn at this size, and resized
TURNED = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}  # stored, by EXIF tag


@dataclasses.dataclass
class Messy:
    """What was written; paths are relative to the folder, with slashes."""

    folder: Path
    good: list[str] = dataclasses.field(default_factory=list)  # images that can be read, duplicates included
    labels: dict[str, str] = dataclasses.field(default_factory=dict)  # good image -> class
    bad: dict[str, str] = dataclasses.field(default_factory=dict)  # file with the name of an image -> what is wrong
    ignored: list[str] = dataclasses.field(default_factory=list)  # other files
    copies: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (image, a file of the same bytes)
    same_pixels: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (image, a file of the same pixels)


def make(
    folder: str | Path,
    images: int = 300,
    size: int = 64,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    broken: bool = True,
    pipe: bool = False,
    flat: bool = False,
) -> Messy:
    """Write ``images`` pictures with sides of 3/4 to 4.7 ``size`` (48 to 300 pixels), and the files that lie between such.

    ``flat``: without class folders. ``broken``: with files that are no images, at most six. ``pipe``: with a FIFO named .png.
    """
    found, stream = Messy(Path(folder)), random.Random(seed)
    noise = np.random.default_rng(seed)
    for number in range(images):
        label = classes[number % len(classes)]
        picture = draw(label, stream, noise).resize(_sides(stream, size), Image.Resampling.LANCZOS)
        within = '' if flat else f'{label}/'
        if number % 23 == 11:
            within += 'phone/July 2019/' if not flat else 'July 2019/'
        path = _write(found.folder, within, number, picture, stream)
        found.good.append(path)
        found.labels[path] = label
    _repeat(found)
    _litter(found, pipe=pipe, broken=broken)
    return found


def draw(label: str, stream: random.Random, noise: np.random.Generator) -> Image.Image:
    """One picture of a class, (CANVAS, CANVAS)."""
    ground: dict[str, Callable[[random.Random], tuple[Colour, Colour]]] = {
        'rocket': lambda s: (_colour(s, (0, 40), (0, 40), (40, 110)), _colour(s, (60, 140), (40, 110), (110, 180))),
        'boat': lambda s: (_colour(s, (130, 200), (180, 225), (220, 255)), _colour(s, (220, 255), (190, 240), (160, 220))),
        'cat': lambda s: (_colour(s, (150, 230), (110, 200), (80, 170)), _colour(s, (90, 160), (60, 130), (40, 110))),
        'tree': lambda s: (_colour(s, (90, 180), (160, 220), (210, 255)), _colour(s, (200, 255), (220, 255), (200, 255))),
    }
    top, bottom = ground[label](stream)
    fade = np.linspace(0, 1, CANVAS)[:, None, None]
    pixels = np.broadcast_to((1 - fade) * np.array(top) + fade * np.array(bottom), (CANVAS, CANVAS, 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    shapes = {'rocket': _rocket, 'boat': _boat, 'cat': _cat, 'tree': _tree}
    x, y = (CANVAS * stream.uniform(0.38, 0.62) for _ in range(2))
    shapes[label](ImageDraw.Draw(image), stream, x, y, CANVAS * stream.uniform(0.22, 0.34))
    grain = noise.normal(0, stream.uniform(2, 7), (CANVAS // 2, CANVAS // 2, 1)).repeat(2, 0).repeat(2, 1)
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def _colour(stream: random.Random, *ranges: tuple[int, int]) -> Colour:
    red, green, blue = (stream.randint(*limits) for limits in ranges)
    return red, green, blue


def _rocket(draw: Draw, stream: random.Random, x: float, y: float, r: float) -> None:
    for _ in range(25):  # stars
        a, b, s = stream.uniform(0, CANVAS), stream.uniform(0, CANVAS), stream.uniform(1, 3)
        draw.ellipse((a - s, b - s, a + s, b + s), fill=(255, 255, 230))
    body = _colour(stream, (180, 255), (180, 255), (180, 255))
    fins = _colour(stream, (180, 255), (20, 120), (20, 120))
    w = 0.35 * r
    draw.polygon([(x - w, y + 0.9 * r), (x, y + 1.6 * r), (x + w, y + 0.9 * r)], fill=(255, 170, 40))
    for side in (-1, 1):
        draw.polygon([(x + side * w, y), (x + side * 2.2 * w, y + r), (x + side * w, y + 0.9 * r)], fill=fins)
    draw.rectangle((x - w, y - 0.5 * r, x + w, y + 0.9 * r), fill=body)
    draw.polygon([(x - w, y - 0.5 * r), (x, y - 1.3 * r), (x + w, y - 0.5 * r)], fill=fins)
    draw.ellipse((x - 0.5 * w, y - 0.3 * r, x + 0.5 * w, y + 0.05 * r), fill=(60, 120, 200))


def _boat(draw: Draw, stream: random.Random, x: float, y: float, r: float) -> None:
    line = y + 0.45 * r
    draw.rectangle((0, line, CANVAS, CANVAS), fill=_colour(stream, (10, 60), (60, 120), (120, 200)))
    sail = _colour(stream, (200, 255), (40, 255), (40, 255))
    draw.polygon([(x + 0.05 * r, y - 1.4 * r), (x + 0.05 * r, y + 0.1 * r), (x + r, y + 0.1 * r)], fill=sail)
    draw.polygon([(x - 0.05 * r, y - 1.1 * r), (x - 0.05 * r, y + 0.1 * r), (x - 0.7 * r, y + 0.1 * r)], fill=(245, 245, 240))
    hull = _colour(stream, (90, 170), (30, 80), (20, 60))
    draw.polygon(
        [(x - 1.3 * r, y + 0.2 * r), (x + 1.3 * r, y + 0.2 * r), (x + 0.9 * r, y + 0.75 * r), (x - 0.9 * r, y + 0.75 * r)],
        fill=hull,
    )
    for _ in range(8):  # waves
        a, b = stream.uniform(0, CANVAS), stream.uniform(min(line + 20, CANVAS - 1), CANVAS)
        draw.line((a, b, a + 30, b), fill=(200, 225, 245), width=2)


def _cat(draw: Draw, stream: random.Random, x: float, y: float, r: float) -> None:
    fur = stream.choice([(230, 140, 50), (90, 90, 95), (245, 235, 220), (50, 40, 40), (160, 110, 70)])
    for side in (-1, 1):
        draw.polygon([(x + side * 0.95 * r, y - 0.2 * r), (x + side * 0.8 * r, y - 1.3 * r), (x, y - 0.7 * r)], fill=fur)
    draw.ellipse((x - r, y - 0.9 * r, x + r, y + 0.9 * r), fill=fur)
    eyes = stream.choice([(120, 200, 60), (240, 200, 40), (80, 170, 230)])
    for side in (-0.4, 0.4):
        draw.ellipse((x + side * r - 0.2 * r, y - 0.35 * r, x + side * r + 0.2 * r, y + 0.1 * r), fill=eyes)
        draw.ellipse((x + side * r - 0.06 * r, y - 0.3 * r, x + side * r + 0.06 * r, y + 0.05 * r), fill=(10, 10, 10))
    draw.polygon([(x - 0.12 * r, y + 0.2 * r), (x + 0.12 * r, y + 0.2 * r), (x, y + 0.35 * r)], fill=(235, 130, 140))
    for lift in (-0.1, 0.05, 0.2):  # whiskers
        for side in (-1, 1):
            draw.line((x + side * 0.2 * r, y + 0.35 * r, x + side * 1.3 * r, y + (0.3 + lift) * r), fill=(240,) * 3, width=2)


def _tree(draw: Draw, stream: random.Random, x: float, y: float, r: float) -> None:
    draw.rectangle((0, y + 0.9 * r, CANVAS, CANVAS), fill=_colour(stream, (60, 130), (130, 190), (40, 90)))
    trunk = _colour(stream, (80, 130), (50, 80), (20, 50))
    draw.rectangle((x - 0.14 * r, y + 0.1 * r, x + 0.14 * r, y + 1.15 * r), fill=trunk)
    leaves = stream.choice([(30, 120, 50), (80, 150, 40), (200, 110, 30), (20, 90, 70)])
    if stream.random() < 0.5:
        for step in range(3):
            wide, at = (1.0 - 0.25 * step) * r, y + (0.35 - 0.55 * step) * r
            draw.polygon([(x - wide, at), (x + wide, at), (x, at - 0.9 * r)], fill=leaves)
    else:
        for dx, dy in ((-0.5, -0.2), (0.5, -0.2), (0, -0.75), (0, -0.1)):
            cx, cy = x + dx * r, y + dy * r
            draw.ellipse((cx - 0.6 * r, cy - 0.6 * r, cx + 0.6 * r, cy + 0.6 * r), fill=leaves)


def _sides(stream: random.Random, size: int) -> tuple[int, int]:
    """Square, portrait or landscape."""
    short = stream.randint(size * 3 // 4, size * 3)
    long = min(int(short * stream.choice([1.0, 1.0, 4 / 3, 3 / 2])), size * 75 // 16)
    return (short, long) if stream.random() < 0.5 else (long, short)


def _write(folder: Path, within: str, number: int, picture: Image.Image, stream: random.Random) -> str:
    """Save a picture in one of the forms that cameras, phones and web pages give; the path below ``folder``."""
    names = (
        f'IMG_{1000 + number}',
        f'holiday {number}',
        f'Übersicht {number}',
        f'日本 {number}',
        f'scan-{number}',
        f'{number}',
    )
    name = within + names[number % len(names)]
    form = (number + number // 20) % 20  # the next class has the form in the next twenty
    settings: dict[str, object] = {}
    if form == 3:
        picture, suffix = picture.convert('L'), '.jpg'
    elif form == 5:
        picture, suffix = picture.convert('CMYK'), '.jpg'
    elif form == 7:
        deep = np.asarray(picture.convert('L')).astype(np.uint16) * 257
        picture, suffix = Image.fromarray(deep), '.png'
    elif form == 9:
        picture.putalpha(Image.new('L', picture.size, 200))
        suffix = '.png'
    elif form == 11:
        picture, suffix = picture.quantize(64), '.png'
    elif form == 13:
        tag = stream.choice(sorted(TURNED))
        exif = Image.Exif()
        exif[0x0112] = tag
        picture, suffix, settings = picture.transpose(TURNED[tag]), '.JPG', {'exif': exif}
    elif form == 15:
        suffix = '.bmp'
    elif form in (2, 17):
        suffix, settings = '.webp', {'quality': 85}
    elif form in (1, 8, 16):
        suffix = '.png'
    else:
        suffix = '.jpeg' if form == 4 else '.jpg'
    if suffix.lower() in ('.jpg', '.jpeg'):
        settings['quality'] = stream.randint(70, 95)
    path = folder / f'{name}{suffix}'
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **settings)  # type: ignore[arg-type]
    return path.relative_to(folder).as_posix()


def _repeat(found: Messy) -> None:
    """A copy of the first image, and the pixels of the first PNG as a BMP."""
    if len(found.good) < 4:
        return
    first = found.good[0]
    copy = _beside(first, f'copy of {Path(first).name}')
    shutil.copyfile(found.folder / first, found.folder / copy)
    found.copies.append((first, copy))
    png = found.good[1]  # of form 1: a PNG in RGB
    again = _beside(png, f'{Path(png).stem}_again.bmp')
    Image.open(found.folder / png).save(found.folder / again)
    found.same_pixels.append((png, again))
    found.good += [copy, again]
    found.labels |= {copy: found.labels[first], again: found.labels[png]}


def _beside(path: str, name: str) -> str:
    return f'{path.rpartition("/")[0]}/{name}'.lstrip('/')


def _litter(found: Messy, pipe: bool, broken: bool) -> None:
    folder = found.folder
    moved = Image.open(folder / found.good[0]).convert('RGB')
    within = found.good[0].rpartition('/')[0]
    within = f'{within}/' if within else ''
    others = {
        'Thumbs.db': b'\xd0\xcf\x11\xe0 thumbnails',
        '.DS_Store': b'\0\0\0\1Bud1',
        'notes.txt': b'Pictures of the summer.\n',
        f'{within}desktop.ini': b'[.ShellClassInfo]\r\n',
        f'{within}._IMG_1000.jpg': b'\0\5\x16\7 resource fork',
        f'__MACOSX/{within}._IMG_1000.jpg': b'\0\5\x16\7 resource fork',
        f'{within}moved.gif': None,
    }
    for name, content in others.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        moved.save(path) if content is None else path.write_bytes(content)
        found.ignored.append(name)
    if broken:
        jpeg = next(path for path in found.good if path.endswith('.jpg'))
        data = (folder / jpeg).read_bytes()
        contents = {
            'cut short.jpg': (data[: len(data) * 2 // 3], 'truncated'),
            'list.png': (b'to do: buy milk\n', 'not an image'),
            'nothing.jpeg': (b'', 'zero bytes'),
            'download.jpg': (b'<!DOCTYPE html><html><body>404 Not Found</body></html>', 'not an image'),
            'half.png': (_png(moved)[:-40], 'truncated'),
        }
        for name, (content, reason) in contents.items():
            (folder / within / name).write_bytes(content)
            found.bad[f'{within}{name}'] = reason
    if pipe:
        os.mkfifo(folder / within / 'queue.png')
        found.bad[f'{within}queue.png'] = 'pipe'


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return buffer.getvalue()
