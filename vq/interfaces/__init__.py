"""The interface of each kind of part. Annotations import these classes, never implementations; registries build by them.

A module is imported when the first of its names is asked for: samples are read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vq.interfaces.codecs import (
        CodebookUpdate,
        Coding,
        Connector,
        Decoder,
        Encoder,
        FeatureDecoder,
        LatentMap,
        Perturbation,
        Quantizer,
        Tokenizer,
    )
    from vq.interfaces.conditions import Conditioned, Conditioner, TextEncoder
    from vq.interfaces.continuous import ContinuousGenerator, Streams, TokenDrawing, TokenHead
    from vq.interfaces.data import Dataset, Field, Sample
    from vq.interfaces.denoisers import Denoise, Denoiser, Drive, Level, Path, TimeLaw
    from vq.interfaces.generators import CausalNetwork, Generator
    from vq.interfaces.losses import ActsOn, Discriminator, DiscriminatorPenalty, GeneratorWeight, HiddenLoss, Loss
    from vq.interfaces.metrics import FeatureNetwork, Features, Metric
    from vq.interfaces.pretrained import Pretrained
    from vq.interfaces.running import Callback, Runner, Schedule, Strategy, Task
    from vq.interfaces.teachers import Layers, Teacher, TeacherFeatures
    from vq.interfaces.unet import ConditionBlock, EmbedBlock, UNetBlock

MODULES = {
    'codecs': 'CodebookUpdate Coding Connector Decoder Encoder FeatureDecoder LatentMap Perturbation Quantizer Tokenizer',
    'continuous': 'ContinuousGenerator Streams TokenDrawing TokenHead',
    'data': 'Dataset Field Sample',
    'conditions': 'Conditioned Conditioner TextEncoder',
    'denoisers': 'Denoise Denoiser Drive Level Path TimeLaw',
    'generators': 'CausalNetwork Generator',
    'losses': 'ActsOn Discriminator DiscriminatorPenalty GeneratorWeight HiddenLoss Loss',
    'metrics': 'FeatureNetwork Features Metric',
    'pretrained': 'Pretrained',
    'running': 'Callback Runner Schedule Strategy Task',
    'teachers': 'Layers Teacher TeacherFeatures',
    'unet': 'ConditionBlock EmbedBlock UNetBlock',
}
HOME = {name: module for module, names in MODULES.items() for name in names.split()}

__all__ = [
    'ActsOn',
    'Callback',
    'CausalNetwork',
    'CodebookUpdate',
    'Coding',
    'ConditionBlock',
    'Conditioned',
    'Conditioner',
    'Connector',
    'ContinuousGenerator',
    'Dataset',
    'Decoder',
    'Denoise',
    'Denoiser',
    'Discriminator',
    'DiscriminatorPenalty',
    'Drive',
    'EmbedBlock',
    'Encoder',
    'FeatureDecoder',
    'FeatureNetwork',
    'Features',
    'Field',
    'Generator',
    'GeneratorWeight',
    'HiddenLoss',
    'LatentMap',
    'Layers',
    'Level',
    'Loss',
    'Metric',
    'Path',
    'Perturbation',
    'Pretrained',
    'Quantizer',
    'Runner',
    'Sample',
    'Schedule',
    'Strategy',
    'Streams',
    'Task',
    'Teacher',
    'TeacherFeatures',
    'TextEncoder',
    'TimeLaw',
    'TokenDrawing',
    'TokenHead',
    'Tokenizer',
    'UNetBlock',
]


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module 'vq.interfaces' has no attribute '{name}'")
    globals()[name] = found = getattr(importlib.import_module(f'vq.interfaces.{HOME[name]}'), name)
    return found
