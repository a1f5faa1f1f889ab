"""Where datasets come from: addresses, digests, licences, and what to do by hand where a licence asks for it.

Every address was read on a public page, which ``source`` names. None has been fetched with this version so far.
"""

from __future__ import annotations

import dataclasses

from vq.core.errors import UserError, nearest
from vq.io.published.catalog import RemoteFile


@dataclasses.dataclass(frozen=True)
class Archive:
    """One zip file, or one plain file. ``file.path``: its place below the folder of all datasets."""

    file: RemoteFile
    into: str  # the folder below that of the dataset in which it is unpacked
    strip: str = ''  # the folder of the archive whose content is unpacked; what lies beside it is left
    only: tuple[str, ...] = ()  # files and folders that are unpacked; empty: all

    @property
    def is_zip(self) -> bool:
        return self.file.path.endswith('.zip')


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset. ``by_hand``: its licence asks the user to agree, so that no command fetches it from its publisher."""

    name: str
    about: str
    folder: str
    licence: str
    page: str
    archives: tuple[Archive, ...]
    by_hand: tuple[str, ...] = ()  # the steps, one a line
    needs: str = ''  # the dataset that is prepared before this one
    makes: str = ''  # the folder of what is made, if it is not ``folder``
    counts: tuple[tuple[str, int], ...] = ()  # folder -> published number of files in it


COCO = 'http://images.cocodataset.org'
COCO_PAGE = 'https://cocodataset.org/#download'
COCO_DIGESTS = 'https://github.com/PaddlePaddle/PaddleDetection (ppdet/utils/download.py)'
WASHINGTON = 'https://homes.cs.washington.edu/~ranjay/visualgenome'
STANFORD = 'https://cs.stanford.edu/people/rak248'


def _coco(part: str, digest: str | None, into: str = '.', only: tuple[str, ...] = ()) -> Archive:
    name = part.rpartition('/')[2]
    source = COCO_DIGESTS if digest else None
    return Archive(RemoteFile(f'{COCO}/{part}', f'coco/archives/{name}', digest, COCO_PAGE, None, source), into, only=only)


def _coco_of(
    year: int, counts: tuple[int, int], train: str, val: str, annotations: str, more: tuple[Archive, ...] = ()
) -> Source:
    archives = (
        _coco(f'annotations/annotations_trainval{year}.zip', annotations),
        _coco(f'zips/val{year}.zip', val),
        _coco(f'zips/train{year}.zip', train),
    )
    licence = 'annotations: CC BY 4.0; images: the terms of Flickr, each photograph has its own licence'
    name = 'coco' if year == 2017 else f'coco-{year}'
    about = f'COCO {year}: photographs, boxes, captions{", stuff" if more else ""}'
    folders = ((f'train{year}', counts[0]), (f'val{year}', counts[1]))
    return Source(name, about, 'coco', licence, COCO_PAGE, (*archives[:1], *more, *archives[1:]), counts=folders)


_STUFF = (
    _coco(
        'annotations/stuff_annotations_trainval2017.zip',
        'sha1:e7aa0f7515c07e23873a9f71d9095b06bcea3e12',
        only=('annotations/stuff_train2017.json', 'annotations/stuff_val2017.json'),
    ),
    Archive(
        RemoteFile(
            'http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip',
            'coco/archives/stuffthingmaps_trainval2017.zip',
            None,
            'https://github.com/nightrome/cocostuff#downloads',
        ),
        'stuffthingmaps',
    ),
)


def _genome(url: str, into: str, strip: str = '') -> Archive:
    name = url.rpartition('/')[2]
    return Archive(RemoteFile(url, f'vg/archives/{name}', None, f'{WASHINGTON}/api.html'), into, strip)


SOURCES = (
    _coco_of(
        2017,
        (118_287, 5_000),
        'md5:cced6f7f71b7629ddf16f17bbcfab6b2',
        'md5:442b8da7639aecaf257c1dceb8ba8c80',
        'md5:f4bbac642086de4f52a3fdda2de5fa2c',
        _STUFF,
    ),
    _coco_of(
        2014,
        (82_783, 40_504),
        'md5:0da8cfa0e090c266b78f30e2d2874f1a',
        'md5:a3d79f5ed8d289b7a7554ce06a5782b3',
        'md5:0a379cfc70b0e71301e0f377548639bd',
    ),
    Source(
        'vg',
        'Visual Genome: photographs and their objects with boxes',
        'vg',
        'CC BY 4.0',
        f'{WASHINGTON}/api.html',
        (
            _genome(f'{WASHINGTON}/data/dataset/image_data.json.zip', 'raw'),
            _genome(f'{WASHINGTON}/data/dataset/objects.json.zip', 'raw'),
            _genome(f'{WASHINGTON}/data/dataset/object_alias.txt', 'raw'),
            _genome(f'{STANFORD}/VG_100K_2/images.zip', 'images'),
            _genome(f'{STANFORD}/VG_100K_2/images2.zip', 'images'),
        ),
    ),
    Source(
        'celebamask',
        'CelebAMask-HQ: 30,000 faces with maps of 19 classes',
        'celebamask-hq',
        'non-commercial research and education only',
        'https://github.com/switchablenorms/CelebAMask-HQ',
        (
            Archive(
                RemoteFile(
                    'https://drive.google.com/open?id=1badu11NqxGf6qM3PTTooQDJvQbejgbTv',
                    'celebamask-hq/archives/CelebAMask-HQ.zip',
                    None,
                    'https://github.com/switchablenorms/CelebAMask-HQ',
                ),
                '.',
                'CelebAMask-HQ',
                ('CelebA-HQ-img', 'CelebAMask-HQ-mask-anno', 'CelebA-HQ-to-CelebA-mapping.txt'),
            ),
        ),
        ('read the agreement on the page, and fetch CelebAMask-HQ.zip (3 GB) by one of its links, in a browser',),
        counts=(('CelebA-HQ-img', 30_000),),
    ),
    Source(
        'celeba_hq',
        'CelebA-HQ at 256 pixels, in the splits of CelebA; made from the photographs of celebamask',
        'celebamask-hq',
        'non-commercial research and education only',
        'https://github.com/switchablenorms/CelebAMask-HQ',
        (),
        needs='celebamask',
        makes='celeba-hq-{size}',
    ),
    Source(
        'ffhq',
        'FFHQ at 256 pixels: 60,000 faces to train on, 10,000 for validation',
        'ffhq',
        'CC BY-NC-SA 4.0 for the set; each photograph has its own licence, and none may be used to recognise people',
        'https://github.com/NVlabs/ffhq-dataset',
        (
            Archive(
                RemoteFile(
                    'https://drive.google.com/open?id=1u2xu7bSrWxrbUxk-dT-UvEJq8IjdmNTP',
                    'ffhq/archives/images1024x1024.zip',
                    None,
                    'https://github.com/NVlabs/ffhq-dataset',
                ),
                'raw',
                only=('images1024x1024',),
            ),
        ),
        (
            'read the licence on the page, and fetch the folder images1024x1024 (89 GB) by its download_ffhq.py --images, '
            'or by a link in a browser',
            'pack it as images1024x1024.zip, or move it to {folder}/raw/images1024x1024',
        ),
        makes='ffhq-{size}',
    ),
)


def find(name: str) -> Source:
    """The source of a dataset; ``coco-2014`` is COCO of that year."""
    for source in SOURCES:
        if source.name == name:
            return source
    names = [source.name for source in SOURCES]
    raise UserError(f"there is no dataset '{name}' to prepare{nearest(name, names)}", f'There is: {", ".join(names)}.')
