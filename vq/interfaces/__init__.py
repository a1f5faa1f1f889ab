"""The interface of each kind of part. Annotations import these classes, never implementations; registries build by them."""

from __future__ import annotations

from vq.interfaces.codecs import CodebookUpdate, Connector, Decoder, Encoder, Quantizer, Tokenizer
from vq.interfaces.data import Dataset, Field, Sample
from vq.interfaces.denoisers import Denoiser
from vq.interfaces.generators import CausalNetwork, Generator
from vq.interfaces.losses import ActsOn, Discriminator, DiscriminatorPenalty, GeneratorWeight, Loss
from vq.interfaces.metrics import FeatureNetwork, Features, Metric
from vq.interfaces.pretrained import Pretrained
from vq.interfaces.running import Callback, Runner, Schedule, Strategy, Task
from vq.interfaces.teachers import Layers, Teacher, TeacherFeatures

__all__ = [
    'ActsOn',
    'Callback',
    'CausalNetwork',
    'CodebookUpdate',
    'Connector',
    'Dataset',
    'Decoder',
    'Denoiser',
    'Discriminator',
    'DiscriminatorPenalty',
    'Encoder',
    'FeatureNetwork',
    'Features',
    'Field',
    'Generator',
    'GeneratorWeight',
    'Layers',
    'Loss',
    'Metric',
    'Pretrained',
    'Quantizer',
    'Runner',
    'Sample',
    'Schedule',
    'Strategy',
    'Task',
    'Teacher',
    'TeacherFeatures',
    'Tokenizer',
]
