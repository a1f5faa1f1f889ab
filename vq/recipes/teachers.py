"""Frozen networks that understand images, by name: the part, its tiny form, and the layers that others distil."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any, Literal, NamedTuple

from vq.core.recipe import Given, Part, recipe

Vision = Literal['dino', 'dino_s16', 'dino_s8', 'dino_b8', 'dinov2_s', 'dinov2_b', 'dinov2', 'mae', 'vit', 'convnext', 'beit2']
Registers = Literal['dinov2_reg_s', 'dinov2_reg_b', 'dinov2_reg']
Language = Literal['clip', 'clip_l14', 'clip_l336', 'eva', 'siglip', 'siglip2']
OpenCLIP = Literal['openclip_b16', 'openclip_l14', 'openclip_h14', 'openclip_bigg14']
Name = Literal[Language, OpenCLIP, Vision, Registers, 'digits']
Layers = str | int | list[int]

TINY_WIDTH = 32  # channels of one layer of all tiny forms but that of digits, and of their pooled vectors
TINY_DEPTH = 2
TINY_DIGITS = dict(width=8, out_channels=16)  # of the classifier of ic/digits.py
TINY_CONVNEXT = dict(dims=(8, 8, 16, TINY_WIDTH), depths=(1, 1, 1, 3), image_size=64)


@dataclasses.dataclass(frozen=True)
class Known:
    """``part``; pixels a side of its training images; C of one layer; blocks; overrides of the part in the tiny form."""

    part: Part
    side: int
    width: int
    depth: int
    tiny: Part
    target: Layers = 'last'  # the layers to distil
    named: dict[str, int] = dataclasses.field(default_factory=dict)  # layers of this family alone -> their channels
    tiny_width: int = TINY_WIDTH  # C of the tiny form

    def channels(self, layers: Layers) -> int:
        if isinstance(layers, str) and layers in self.named:
            return self.named[layers]
        return self.width * (len(layers) if isinstance(layers, list) else 1)

    def small(self, layers: Layers) -> Part:
        """The tiny form, which keeps the number of blocks if ``layers`` counts them."""
        counted = not isinstance(layers, str) or re.match('sum_of_last_', layers) is not None
        return {**self.tiny, 'depth': self.depth} if counted and 'depth' in self.tiny else self.tiny


def _tiny(image_size: int) -> Part:
    return dict(dimension=TINY_WIDTH, depth=TINY_DEPTH, heads=4, image_size=image_size)


def _clip(side: int, patch: int, dimension: int, width: int, depth: int, heads: int, file: str) -> Known:
    sizes = dict(dimension=dimension, width=width, depth=depth, heads=heads, image_size=side, patch_size=patch, file=file)
    small = dict(_tiny(2 * patch), width=TINY_WIDTH)
    return Known(dict(type='CLIPTeacher', **sizes), side, width, depth, small, 'projected', dict(projected=dimension))


def _openclip(dimension: int, width: int, depth: int, heads: int, patch: int, file: str, **more: Any) -> Known:
    known = _clip(224, patch, dimension, width, depth, heads, f'openclip/{file}.bin')
    return dataclasses.replace(known, part={**known.part, 'type': 'OpenCLIPTeacher', **more})


SIZES = {'s': (384, 12, 6), 'b': (768, 12, 12), 'l': (1024, 24, 16)}  # width, blocks, heads


def _vit(kind: str, file: str, size: str = 'b', patch: int = 16, **more: Any) -> Known:
    width, depth, heads = SIZES[size]
    part = dict(type=kind, dimension=width, depth=depth, heads=heads, image_size=224, patch_size=patch, file=file, **more)
    return Known(part, 224, width, depth, _tiny(4 * patch))


def _dinov2(size: str, registers: int = 0) -> Known:
    file = f'dinov2/dinov2_vit{size}14_{f"reg{registers}_" if registers else ""}pretrain.pth'
    return _vit('DINOv2Teacher', file, size, 14, **(dict(registers=registers) if registers else {}))


TEACHERS: dict[str, Known] = {
    'clip': _clip(224, 16, 512, 768, 12, 12, 'clip/ViT-B-16.pt'),
    'clip_l14': _clip(224, 14, 768, 1024, 24, 16, 'clip/ViT-L-14.pt'),
    'clip_l336': _clip(336, 14, 768, 1024, 24, 16, 'clip/clip-vit-large-patch14-336.bin'),
    'openclip_b16': _openclip(512, 768, 12, 12, 16, 'ViT-B-16-laion2b_s34b_b88k'),
    'openclip_l14': _openclip(768, 1024, 24, 16, 14, 'ViT-L-14-laion2b_s32b_b82k', normalisation='inception'),
    'openclip_h14': _openclip(1024, 1280, 32, 16, 14, 'ViT-H-14-laion2b_s32b_b79k'),
    'openclip_bigg14': _openclip(1280, 1664, 48, 16, 14, 'ViT-bigG-14-laion2b_s39b_b160k', mlp_ratio=4.9231),
    'eva': Known(dict(type='EVACLIPTeacher'), 224, 768, 12, dict(_tiny(32), width=TINY_WIDTH), named=dict(projected=512)),
    'siglip': _vit('SigLIPTeacher', 'siglip/siglip-base-patch16-224.safetensors'),
    'siglip2': _vit('SigLIPTeacher', 'siglip/siglip2-base-patch16-224.safetensors'),
    'dino': _vit('DINOTeacher', 'dino/dino_vitbase16_pretrain.pth'),
    'dino_b8': _vit('DINOTeacher', 'dino/dino_vitbase8_pretrain.pth', patch=8),
    'dino_s16': _vit('DINOTeacher', 'dino/dino_deitsmall16_pretrain.pth', 's'),
    'dino_s8': _vit('DINOTeacher', 'dino/dino_deitsmall8_pretrain.pth', 's', 8),
    **{f'dinov2{"" if size == "l" else f"_{size}"}': _dinov2(size) for size in SIZES},
    **{f'dinov2_reg{"" if size == "l" else f"_{size}"}': _dinov2(size, 4) for size in SIZES},
    'mae': _vit('MAETeacher', 'mae/mae_pretrain_vit_base.pth'),
    'vit': _vit('ViTTeacher', 'torchvision/vit_b_16-c867db91.pth'),
    'convnext': Known(
        dict(type='ConvNeXtTeacher', upsample=2), 224, 1024, 3, TINY_CONVNEXT
    ),  # cells of 16 pixels, as of others
    'beit2': _vit('BEiT2Teacher', 'beitv2/beitv2_base_patch16_224_pt1k.pth'),
}


def digits_network(width: int = 16) -> Part:
    """The classifier of ic/digits.py: 8 x 8 cells of 64 channels at 32 pixels."""
    shape = dict(multipliers=(1, 2, 4), residual_blocks=1, attention_levels=(), refine=False, norm_groups=4, out_channels=64)
    return dict(type='ConvEncoder', width=width, **shape)


def _digits(run: str) -> Known:
    classifier = dict(type='ImageClassification', classes=10, backbone=digits_network())
    part = dict(type='TrainedTeacher', classifier=classifier, weights=run, image_size=32)
    return Known(part, 32, 64, 1, dict(classifier=dict(backbone=TINY_DIGITS)), tiny_width=TINY_DIGITS['out_channels'])


class Chosen(NamedTuple):
    """A teacher in a config."""

    part: Part
    tiny: Part  # overrides of ``part`` in the tiny form
    layers: Layers
    width: int  # channels of the patch map of ``layers``
    tiny_width: int  # in the tiny form
    side: int  # pixels a side of the images of its training


@recipe()
def teacher(
    given: Given,
    *,
    teacher: Annotated[Name, 'frozen network that understands images; digits: the classifier of ic/digits.py'] = 'clip',
    teacher_layers: Annotated[Layers | None, "'last', 'penultimate', 'sum_of_last_K', numbers; None: its own choice"] = None,
    teacher_run: Annotated[str, 'teacher digits: run of ic/digits.py, a checkpoint of it, or a file'] = 'ic/digits',
) -> Chosen:
    """A frozen network by name. Its weights are read from the folder of pretrained files, or from a run."""
    known = _digits(teacher_run) if teacher == 'digits' else TEACHERS[teacher]
    layers = known.target if teacher_layers is None else teacher_layers
    tiny_width = known.tiny_width * (len(layers) if isinstance(layers, list) else 1)
    return Chosen(dict(known.part), dict(known.small(layers)), layers, known.channels(layers), tiny_width, known.side)


@recipe(teacher, hides=('teacher_layers',))
def teacher_images(given: Given) -> Part:
    """A teacher as a feature network of metrics: the pooled vector of images."""
    chosen = teacher(given)
    return dict(type='TeacherImages', teacher=chosen.part, image_size=chosen.side)
