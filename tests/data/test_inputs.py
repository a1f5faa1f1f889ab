"""Images in the forms that callers have, to batches for a model: every form of one picture gives the same batch."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.data.decode import decode_image, pixels_of
from vq.data.inputs import Intake, give, take_tokens
from vq.data.transforms import none

CPU = torch.device('cpu')
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 24, 16, 3), dtype=np.uint8)  # (B, H, W, 3)
EXPECTED = torch.from_numpy(PIXELS.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(127.5) - 1)


def read(images: Any, value_range: Any = None, size: tuple[int, int] = (24, 16), **settings: Any) -> torch.Tensor:
    return torch.cat([*Intake(size, **settings).batches(images, CPU, value_range)])


CHW = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)  # not contiguous
SIGNED = EXPECTED.numpy().transpose(0, 2, 3, 1)
FORMS: dict[str, tuple[Any, Any]] = {
    'uint8 tensor': (CHW, None),
    'uint8 tensor, contiguous': (CHW.contiguous(), None),
    'float tensor': (EXPECTED, None),
    'float tensor, said': (EXPECTED, '-1..1'),
    'double tensor that requires gradients': (EXPECTED.double().requires_grad_(), None),
    'float tensor in [0, 1]': (CHW.float() / 255, '0..1'),
    'list of tensors': (list(CHW), None),
    'tuple of Pillow images': (tuple(map(Image.fromarray, PIXELS)), None),
    'uint8 array': (PIXELS, None),
    'uint8 array, read-only': (np.broadcast_to(PIXELS, PIXELS.shape), None),
    'uint8 array, upside down twice': (PIXELS[:, ::-1].copy()[:, ::-1], None),
    'float array': (SIGNED, None),
    'float64 array in [0, 1], big-endian': ((PIXELS / 255).astype('>f8'), '0..1'),
    'list of arrays': (list(PIXELS), None),
    'uint16 array': (PIXELS.astype(np.uint16) * 257, None),
    'array with alpha': (np.concatenate([PIXELS, PIXELS[..., :1]], -1), None),
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_the_same_batch(form: str) -> None:
    images, value_range = FORMS[form]
    found = read(images, value_range)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, EXPECTED, rtol=0, atol=1e-6)
    if 'in [0, 1]' not in form:
        assert torch.equal(found, EXPECTED), 'the values of uint8 images are exact'


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_taken(dtype: torch.dtype) -> None:
    found = read(EXPECTED.to(dtype))
    assert torch.equal(found, EXPECTED.to(dtype).float())


@pytest.mark.parametrize('image', [PIXELS[0], CHW[0], Image.fromarray(PIXELS[0]), EXPECTED[0]], ids=lambda x: type(x).__name__)
def test_one_image_is_a_batch_of_one(image: Any) -> None:
    assert torch.equal(read(image), EXPECTED[:1])


def test_grey_has_three_equal_channels() -> None:
    grey = PIXELS[..., 0]
    expected = EXPECTED[:, :1].expand(-1, 3, -1, -1)
    for images in (CHW[:, :1], list(grey), grey[..., None], [Image.fromarray(image) for image in grey]):
        assert torch.equal(read(images), expected)
    assert torch.equal(read(grey[0]), expected[:1])


def test_batches_are_bounded() -> None:
    for images in (CHW, [Image.fromarray(image) for image in PIXELS]):
        parts = [*Intake((24, 16), batch_size=2).batches(images, CPU)]
        assert [len(part) for part in parts] == [2, 1]
        assert torch.equal(torch.cat(parts), EXPECTED)
    assert Intake((256, 256)).rows(256, 256) == 16
    assert Intake((256, 256)).rows(4096, 4096) == 1


# ranges


@pytest.mark.parametrize(
    ('images', 'value_range', 'said', 'remedy'),
    [
        (CHW.float(), None, 'from 0 to 255, and [-1.0, 1.0] is needed', 'Values of 0 to 255 are given as uint8'),
        (
            PIXELS.astype(np.float32),
            '0..1',
            "from 0 to 255, and [0.0, 1.0] is needed for value_range='0..1'",
            'given as uint8',
        ),
        (EXPECTED, '0..1', 'from -1 to 1, and [0.0, 1.0] is needed', "They can be in [-1, 1]: value_range='-1..1'"),
        (EXPECTED * 2.5, None, 'from -2.5 to 2.5', 'mean and a deviation'),
        (EXPECTED.where(EXPECTED < 0.5, torch.nan), None, 'from nan to nan', 'Scale them'),
        (EXPECTED.where(EXPECTED < 0.5, torch.inf), '-1..1', 'to inf', 'Scale them'),
        (SIGNED + 1, None, 'from 0 to 2', 'Values of 0 to 255'),
        (PIXELS / 255, None, 'from 0 to 1, which can be a part of [-1, 1] as well as [0, 1]', "value_range='0..1'"),
    ],
    ids=str,
)
def test_floats_of_another_range_are_refused(images: Any, value_range: Any, said: str, remedy: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read(images, value_range)
    assert remedy in caught.value.hint


def test_a_tensor_without_a_negative_value_is_taken_by_contract_and_warned_of_once() -> None:
    intake, bright = Intake((24, 16)), (EXPECTED + 1) / 2
    with pytest.warns(UserWarning, match=r"from 0 to 1, which .* value_range='0..1' or value_range='-1..1' to be sure"):
        (found,) = intake.batches(bright, CPU)
    assert torch.equal(found, bright)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert [*intake.batches(bright, CPU)]  # once
        assert torch.equal(read(bright, '-1..1'), bright)
        assert torch.equal(read(bright, value_range='0..1'), bright * 2 - 1)
        assert torch.equal(torch.cat([*Intake((24, 16), value_range='0..1').batches(bright, CPU)]), bright * 2 - 1)


@pytest.mark.parametrize(
    ('images', 'said'),
    [
        (None, 'of the type NoneType'),
        ({'image': 1}, 'of the type dict'),
        ([], 'no image is given'),
        (CHW[:0], 'no image is given'),
        ([1, 2], 'a list of the type int'),
        (CHW.long(), 'a tensor of int64'),
        (CHW > 3, 'a tensor of bool'),
        (PIXELS.astype(np.int32), 'an array of int32'),
        (PIXELS[0] > 3, 'an array of bool'),
        (PIXELS.transpose(0, 3, 1, 2), 'an array of the shape (3, 3, 24, 16)'),
        (torch.from_numpy(PIXELS), 'have the shape (3, 24, 16, 3)'),
        (torch.zeros(24, 16), 'have the shape (24, 16)'),
        ([PIXELS[0], PIXELS[1, :8]], '(24, 16, 3) uint8'),
        ([PIXELS[0], Image.fromarray(PIXELS[0])], 'image 0 is of the type ndarray, image 1 Image'),
        ('no/such.png', 'no/such.png: cannot be read: No such file'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_other_inputs_are_refused(images: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read(images)
    assert caught.value.hint


def test_misspelt_choices_are_refused() -> None:
    with pytest.raises(UserError, match=r"value_range is '0\.\.2'; did you mean '0\.\.1'"):
        read(CHW, '0..2')
    with pytest.raises(UserError, match='batch_size is 0'):
        Intake((8, 8), batch_size=0)


# files and Pillow images


def test_files_and_pillow_images_are_prepared_as_in_validation(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / 'one.png')
    expected = none(picture, python_stream(), image_size=24)
    images = [tmp_path / 'one.png', str(tmp_path / 'one.png'), Image.open(tmp_path / 'one.png')]
    for settings in ({}, {'preprocessing': {'transform': {'type': 'VQTransformRegistry.none', 'image_size': 24}}}):
        found = give(read(images, size=(24, 24), **settings), 'numpy')
        assert found.shape == (3, 24, 24, 3)
        assert all(np.array_equal(image, expected) for image in found)


def test_where_no_transform_applies_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'<image 0> is 16 x 24 pixels after .* whose images are 16 x 8'):
        read(Image.fromarray(PIXELS[0]), size=(8, 16))


def saved(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(PIXELS[0]), 'PNG', exif=exif)


FILES: dict[str, Callable[[], bytes]] = {
    'grey': lambda: saved(Image.fromarray(PIXELS[0, ..., 0]), 'PNG'),
    'grey of 16 bits': lambda: saved(Image.fromarray(PIXELS[0, ..., 0].astype(np.uint16) * 200), 'PNG'),
    'alpha': lambda: saved(Image.fromarray(PIXELS[0]).convert('RGBA'), 'PNG'),
    'palette': lambda: saved(Image.fromarray(PIXELS[0]).quantize(7), 'PNG', transparency=2),
    'CMYK': lambda: saved(Image.fromarray(PIXELS[0]).convert('CMYK'), 'JPEG'),
    'EXIF orientation': turned,
    'one bit': lambda: saved(Image.fromarray(PIXELS[0]).convert('1'), 'PNG'),
}


@pytest.mark.parametrize('kind', FILES)
def test_pillow_images_are_decoded_as_files_are(kind: str) -> None:
    data = FILES[kind]()
    assert np.array_equal(pixels_of(Image.open(io.BytesIO(data))), decode_image(data))


def test_moving_and_float_images_are_refused() -> None:
    frames = [Image.fromarray(image) for image in PIXELS]
    moving = Image.open(io.BytesIO(saved(frames[0], 'GIF', save_all=True, append_images=frames[1:])))
    with pytest.raises(UserError, match='<image 0>: holds more than one frame'):
        read(moving)
    with pytest.raises(UserError, match='<image 1>: has floating-point pixels'):
        read([frames[0], Image.fromarray(SIGNED[0, ..., 0].copy())])


# results and tokens


def test_results_come_in_the_form_that_is_asked_for() -> None:
    assert give(CHW, 'tensor') is CHW
    assert torch.equal(give(EXPECTED, 'tensor'), CHW)
    assert np.array_equal(give(EXPECTED, 'numpy'), PIXELS)
    pictures = give(CHW, 'pil')
    assert [picture.size for picture in pictures] == [(16, 24)] * 3
    assert all(np.array_equal(np.asarray(picture), image) for picture, image in zip(pictures, PIXELS, strict=True))


def test_tokens_are_taken_as_tensors_arrays_and_lists() -> None:
    wanted = torch.arange(8).view(2, 2, 2)
    for tokens in (wanted, wanted.int(), wanted.numpy().astype(np.uint16), wanted.tolist()):
        assert torch.equal(take_tokens(tokens, 8, (2, 2)), wanted)
    assert torch.equal(take_tokens(wanted[0], 8, (2, 2)), wanted[:1])
    assert take_tokens(torch.zeros(1, 3, 5, dtype=torch.int64), 8, (2, 2)).shape == (1, 3, 5)  # of an image of another size


@pytest.mark.parametrize(
    ('tokens', 'said'),
    [
        (torch.zeros(1, 2, 2), 'tokens are torch.float32'),
        (torch.full((1, 2, 2), 8), 'tokens reach from 8 to 8, and the codebook has 8 codes'),
        (torch.full((1, 2, 2), -1), 'tokens reach from -1'),
        (torch.zeros(4, dtype=torch.int64), r'tokens have the shape \(4,\)'),
        (torch.zeros(0, 2, 2, dtype=torch.int64), 'there are none'),
        ('abc', 'tokens are of the type str'),
        ([[[1], [2, 3]]], 'tokens are of the type list'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_other_tokens_are_refused(tokens: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        take_tokens(tokens, 8, (2, 2))
