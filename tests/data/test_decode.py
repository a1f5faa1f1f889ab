"""Decoding against closed forms and Pillow's own tools; every kind of bad file."""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import random
import warnings
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from vq.core.errors import ConfigError, UserError
from vq.data import decode, jpeg
from vq.data.decode import BadImage, decode_image, noting_fallbacks
from vq.data.jpeg import decoder_of

BACKENDS = ['pillow', 'simplejpeg', 'torchvision', 'cv2']
FAST = BACKENDS[1:]


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('backend', BACKENDS)
def test_bad_files_raise_with_their_reason(bad_file, backend):
    path, word = bad_file
    with pytest.raises(BadImage) as raised:
        decode_image(path, backend)
    assert raised.value.path == str(path)
    assert word in raised.value.reason


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('kind', ['IHDR', 'IDAT', 'vqAt', 'IEND'])
def test_png_chunks_with_a_wrong_checksum_are_bad_images(kind, backend, make_picture, encode):
    about = PngImagePlugin.PngInfo()
    about.add(b'vqAt', b'behind the pixels', after_idat=True)
    data = encode(make_picture(33, 21), 'PNG', pnginfo=about)
    np.testing.assert_array_equal(decode_image(data, backend), make_picture(33, 21))
    place = data.index(kind.encode())
    length = int.from_bytes(data[place - 4 : place])
    for at in {place + 4 + length, place + 4 + length // 2}:  # in the checksum, and in the middle of the content
        with pytest.raises(BadImage) as raised:
            decode_image(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], backend)
        assert 'checksum' in raised.value.reason or 'header' in raised.value.reason


def test_missing_file_and_folder_are_bad_images(tmp_path):
    for path in (tmp_path / 'none.png', tmp_path):
        with pytest.raises(BadImage, match='cannot be read'):
            decode_image(path)


def test_bad_image_travels_between_processes():
    error = pickle.loads(pickle.dumps(BadImage('a.png', 'is empty')))
    assert (error.path, error.reason, str(error)) == ('a.png', 'is empty', 'a.png: is empty')


def test_bytes_path_and_text_path_agree(tmp_path, make_picture, encode):
    path = tmp_path / 'a.png'
    path.write_bytes(encode(make_picture(5, 7), 'PNG'))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode_image(source), make_picture(5, 7))


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'PPM', 'TIFF', 'WEBP'])
def test_lossless_formats_come_back_exactly(kind, make_picture, encode):
    settings = {'lossless': True} if kind == 'WEBP' else {}
    pixels = decode_image(encode(make_picture(13, 17), kind, **settings))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, make_picture(13, 17))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM'])
def test_sixteen_bit_grey_is_rounded_over_its_whole_range(kind, encode):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    exact = [int(Fraction(value, 257) + Fraction(1, 2)) for value in range(65536)]
    pixels = decode_image(encode(Image.fromarray(values), kind))
    assert pixels.shape == (256, 256, 3)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[:, :, channel].ravel(), exact)


def test_one_bit_grey_and_alpha_become_rgb(encode):
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert('1')
    np.testing.assert_array_equal(decode_image(encode(bits, 'PNG'))[:, :, 1], [[0, 255], [255, 0]])
    grey = Image.fromarray(np.array([[3, 200]], np.uint8))
    np.testing.assert_array_equal(decode_image(encode(grey, 'PNG')), [[[3] * 3, [200] * 3]])
    colours = np.array([[[10, 20, 30, 0], [40, 50, 60, 128]]], np.uint8)
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(colours), 'PNG')), colours[:, :, :3])
    greys = Image.fromarray(np.array([[[7, 0], [9, 255]]], np.uint8), 'LA')
    np.testing.assert_array_equal(decode_image(encode(greys, 'PNG')), [[[7] * 3, [9] * 3]])


@pytest.mark.parametrize('transparency', [None, 1, bytes([0, 128, 255])])
def test_palette_with_transparency_keeps_its_colours_and_warns_of_nothing(transparency, encode):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), 'P')
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = encode(image, 'PNG') if transparency is None else encode(image, 'PNG', transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        np.testing.assert_array_equal(decode_image(data), [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])


@pytest.mark.parametrize('backend', BACKENDS)
def test_cmyk_jpeg_has_the_right_colours(backend, encode):
    for ink, colour in (
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 128, 0, 64), (191, 95, 191)),
    ):
        pixels = decode_image(encode(Image.new('CMYK', (16, 8), ink), 'JPEG', quality=100), backend)
        assert pixels.shape == (8, 16, 3)
        assert np.abs(pixels.astype(int) - colour).max() <= 3


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied(backend, orientation, make_picture, encode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ('PNG', 'JPEG', 'WEBP'):
        data = encode(make_picture(24, 40), kind, exif=exif, **({'lossless': True} if kind == 'WEBP' else {}))
        upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
        pixels = decode_image(data, backend)
        assert pixels.shape == upright.shape
        assert np.abs(pixels.astype(int) - upright).max() <= (0 if backend == 'pillow' else 2)
        assert pixels.flags['C_CONTIGUOUS']


@pytest.mark.filterwarnings('ignore:Corrupt EXIF')
def test_damaged_exif_does_not_cost_the_picture(make_picture, encode):
    plain = encode(make_picture(16, 16), 'JPEG')
    damaged = plain[:2] + b'\xff\xe1\x00\x14Exif\0\0MM\0*\xff\xff\xff\xff\x12\x34' + plain[2:]
    np.testing.assert_array_equal(decode_image(damaged), decode_image(plain))


def test_a_photograph_with_a_second_view_is_not_animated(encode):
    data = encode(Image.new('RGB', (24, 16), 'red'), 'MPO', save_all=True, append_images=[Image.new('RGB', (8, 8), 'blue')])
    assert Image.open(io.BytesIO(data)).is_animated
    for backend in BACKENDS:
        pixels = decode_image(data, backend)
        assert pixels.shape == (16, 24, 3)
        assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize(
    'settings', [{}, {'subsampling': 0}, {'progressive': True}, {'quality': 30}, {'restart_marker_rows': 1}], ids=str
)
def test_backends_agree_on_jpeg(settings, make_picture, encode):
    image = Image.fromarray(make_picture(75, 101))
    for source in (image, image.convert('L')):
        data = encode(source, 'JPEG', **settings)
        first = decode_image(data, 'pillow').astype(int)
        for backend in (*FAST, 'auto'):
            with noting_fallbacks() as fallbacks:
                second = decode_image(data, backend)
            assert first.shape == second.shape == (75, 101, 3)
            assert np.abs(first - second).max() <= 2
            assert not fallbacks


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP'])
def test_a_file_cut_anywhere_is_bad_or_whole(kind, backend, make_picture, encode):
    data = encode(make_picture(24, 40), kind)
    whole = decode_image(data, backend)
    bad = 0
    for length in [*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 20, len(data))]:
        try:
            np.testing.assert_array_equal(decode_image(data[:length], backend), whole)
        except BadImage:
            bad += 1
    assert bad > 50  # PNG and WEBP can lose a few bytes after the pixels; most truncations lose pixels


def test_opencv_never_sees_a_jpeg_without_its_end(monkeypatch, make_picture, encode):
    import mmcv

    data = encode(make_picture(120, 160), 'JPEG')
    grey = np.full((120, 160, 3), 128, np.uint8)  # what older versions give
    monkeypatch.setattr(mmcv, 'imfrombytes', lambda *_, **__: grey)
    assert (decode_image(data, 'cv2') == 128).all()
    with pytest.raises(BadImage, match='truncated'):
        decode_image(data[:-300], 'cv2')


@pytest.mark.parametrize('backend', FAST)
def test_what_pillow_decodes_instead_is_counted_by_kind(backend, make_picture, encode):
    image = Image.fromarray(make_picture(24, 40))
    plain = encode(image, 'JPEG')
    others = [encode(image, 'PNG'), encode(image.convert('CMYK'), 'JPEG'), plain + b'more', encode(image, 'PNG')]
    with noting_fallbacks() as fallbacks:
        for data in (plain, *others):
            np.testing.assert_array_equal(decode_image(data, 'pillow'), decode_image(data, backend))
        with pytest.raises(BadImage):
            decode_image(plain[:-300], backend)  # neither decodes it, so it does not count
    end = 'JPEG files that do not end with the end marker'
    assert fallbacks == {'PNG files': (2, '<bytes>'), 'CMYK JPEG files': (1, '<bytes>'), end: (1, '<bytes>')}
    decode_image(others[0], backend)
    assert fallbacks['PNG files'][0] == 2  # outside of the block nothing is noted


def test_the_header_walk_takes_plain_files_alone_and_knows_their_size(make_picture, encode):
    image = Image.fromarray(make_picture(24, 40))
    kinds: list[dict] = [{}, {'progressive': True}, {'comment': 'a'}, {'subsampling': 0}]
    plain = [encode(image, 'JPEG', **settings) for settings in kinds]
    assert [jpeg.plain_size(data) for data in (*plain, encode(image.convert('L'), 'JPEG'))] == [(24, 40)] * 5
    exif = Image.Exif()
    exif[0x0112] = 6
    others = [
        encode(image, 'JPEG', exif=exif),
        encode(image, 'JPEG', icc_profile=b'any'),
        encode(image.convert('CMYK'), 'JPEG'),
    ]
    others += [encode(image, 'PNG'), plain[0] + b'more', b'', b'\xff\xd8\xff\xd9']
    others += [b'\xff\xd8' + b'\xff' * 40 + b'\xff\xd9']
    others += [plain[0][:length] + b'\xff\xd9' for length in range(2, plain[0].index(b'\xff\xda'), 7)]
    assert not any(map(jpeg.plain_size, others))


def test_a_damaged_file_that_a_strict_decoder_refuses_goes_to_pillow(tmp_path, make_picture, encode):
    data = bytearray(encode(make_picture(120, 160), 'JPEG', restart_marker_rows=1))
    place = data.index(b'\xff\xd2')
    data[place + 1] = 0xD5  # restart markers out of order: libjpeg warns, and has all rows
    path = tmp_path / 'odd.jpg'
    path.write_bytes(data)
    with noting_fallbacks() as fallbacks:
        np.testing.assert_array_equal(decode_image(path, 'simplejpeg'), decode_image(path))
    assert fallbacks == {'JPEG files that simplejpeg refuses': (1, str(path))}


def test_auto_takes_the_first_decoder_that_works(monkeypatch, caplog):
    def lacking(*names):
        def find(name, *_):
            if name in names:
                raise ImportError(name)
            return found(name)

        decoder_of.cache_clear()
        monkeypatch.setattr(jpeg.importlib, 'import_module', find)
        return decoder_of('auto')

    found = jpeg.importlib.import_module
    try:
        with caplog.at_level(logging.INFO, 'vq'):
            assert lacking().name == 'simplejpeg'
            assert lacking('simplejpeg').name == 'torchvision'
            assert lacking('simplejpeg', 'torchvision').name == 'cv2'
            assert lacking('simplejpeg', 'torchvision', 'mmcv') is None
        with pytest.raises(UserError, match="'simplejpeg' cannot be imported") as raised:
            decoder_of('simplejpeg')
    finally:
        decoder_of.cache_clear()
    assert 'vq[fast]' in raised.value.hint
    assert [record.args[0] for record in caplog.records] == ['simplejpeg', 'torchvision', 'cv2', 'Pillow']


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP'])
@pytest.mark.filterwarnings('ignore')
def test_changed_bytes_never_raise_anything_else(kind, make_picture, encode):
    data = encode(make_picture(12, 20), kind)
    stream = random.Random(kind)
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(stream.randint(1, 6)):
            changed[stream.randrange(min(len(data), 400))] = stream.randrange(256)
        with contextlib.suppress(BadImage):
            pixels = decode_image(bytes(changed), pixel_limit=10_000)
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_a_bomb_is_judged_by_its_header(monkeypatch, make_png_header):
    loaded = []
    monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda self: loaded.append(self.size))
    for size in (9_500, 60_000):
        with pytest.raises(BadImage, match='bomb'):
            decode_image(make_png_header(size, size))
    assert not loaded


@pytest.mark.filterwarnings('error')
def test_pixel_limit_can_be_set_both_ways(monkeypatch, make_picture, encode, make_png_header):
    data = encode(make_picture(10, 10), 'PNG')
    assert decode_image(data, pixel_limit=100).shape == (10, 10, 3)
    with pytest.raises(BadImage, match='10 x 10 pixels, over the limit of 99'):
        decode_image(data, pixel_limit=99)
    before = Image.MAX_IMAGE_PIXELS
    assert before == decode.PIXEL_LIMIT
    honest = make_png_header(20_000, 20_000)[:57]  # header and an empty start of the data
    monkeypatch.setattr(ImageFile.ImageFile, 'load', _refuse)
    with pytest.raises(BadImage, match='cannot be decoded: RuntimeError: got here'):
        decode_image(honest, pixel_limit=10**9)
    assert before == Image.MAX_IMAGE_PIXELS


def _refuse(_):
    raise RuntimeError('got here')


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('lost', [13, 14, 16, 18])
def test_a_png_cut_in_its_last_data_is_a_bad_image(backend, lost, make_picture, encode):
    """Its rows are complete, so that Pillow decodes it: with a byte lost elsewhere, to other pixels."""
    if backend == 'cv2':
        pytest.importorskip('mmcv')
    data = encode(make_picture(23, 37), 'PNG')
    with pytest.raises(BadImage, match='truncated'):
        decode_image(data[:-lost], backend)


def test_truncated_images_stay_refused():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_unknown_backend_names_the_known_ones(make_picture, encode):
    with pytest.raises(ConfigError, match="did you mean 'pillow'"):
        decode_image(encode(make_picture(4, 4), 'PNG'), 'pilow')
