"""The tree of all registries. A child holds special kinds of parts. When a name is first asked for, a registry imports the
modules of its package that register it, and the whole package if none does.

``interface`` names the base class in ``vq/interfaces/``: a constructor parameter annotated with it takes a nested
``dict(type=...)`` from that registry. Nothing here imports torch.
"""

from __future__ import annotations

from vq.core.phases import MOVED_SETTINGS
from vq.core.registry import Registry


class VQRegistry(Registry):
    """The root."""


# data


class VQDatasetRegistry(VQRegistry):
    package = 'vq.data.datasets'
    interface = 'vq.interfaces:Dataset'


class VQTransformRegistry(VQRegistry):
    """Functions ``(sample, stream, **settings) -> sample``, or ``(image, ...) -> image``; built as partials."""

    package = 'vq.data.transforms'


# models


class VQModelRegistry(VQRegistry):
    """Tokenizers; its child registries hold every kind of network."""

    package = 'vq.tokenizers'
    interface = 'vq.interfaces:Tokenizer'


class VQEncoderRegistry(VQModelRegistry):
    package = 'vq.encoders'
    interface = 'vq.interfaces:Encoder'


class VQDecoderRegistry(VQModelRegistry):
    package = 'vq.decoders'
    interface = 'vq.interfaces:Decoder'


class VQFeatureDecoderRegistry(VQModelRegistry):
    """Networks from code vectors to the features of a teacher."""

    package = 'vq.decoders'
    interface = 'vq.interfaces:FeatureDecoder'


class VQConnectorRegistry(VQModelRegistry):
    package = 'vq.nn.connectors'
    interface = 'vq.interfaces:Connector'


class VQLatentMapRegistry(VQModelRegistry):
    """Invertible maps between the latents of a tokenizer and those of a second stage."""

    package = 'vq.nn.latent_maps'
    interface = 'vq.interfaces:LatentMap'


class VQPerturbationRegistry(VQModelRegistry):
    """What disturbs latents between encoder and decoder, in training."""

    package = 'vq.nn.perturbations'
    interface = 'vq.interfaces:Perturbation'


class VQQuantizerRegistry(VQModelRegistry):
    package = 'vq.quantizers'
    interface = 'vq.interfaces:Quantizer'


class VQCodebookUpdateRegistry(VQQuantizerRegistry):
    package = 'vq.quantizers.updates'
    interface = 'vq.interfaces:CodebookUpdate'


class VQDiscriminatorRegistry(VQModelRegistry):
    package = 'vq.discriminators'
    interface = 'vq.interfaces:Discriminator'


class VQGeneratorRegistry(VQModelRegistry):
    """Models that learn and sample tokens."""

    package = 'vq.generators'
    interface = 'vq.interfaces:Generator'


class VQCausalNetworkRegistry(VQGeneratorRegistry):
    """Transformers that autoregressive generators run on."""

    package = 'vq.generators.networks'
    interface = 'vq.interfaces:CausalNetwork'


class VQContinuousGeneratorRegistry(VQModelRegistry):
    """Models that learn and sample continuous tokens."""

    package = 'vq.generators.continuous'
    interface = 'vq.interfaces:ContinuousGenerator'


class VQTokenHeadRegistry(VQModelRegistry):
    """From a vector to a continuous token."""

    package = 'vq.generators.heads'
    interface = 'vq.interfaces:TokenHead'


class VQDenoiserRegistry(VQModelRegistry):
    """Networks that estimate what noise was added."""

    package = 'vq.denoisers'
    interface = 'vq.interfaces:Denoiser'


class VQUNetBlockRegistry(VQDenoiserRegistry):
    """Blocks of a UNet: residual, attention, between two resolutions."""

    package = 'vq.denoisers.unet'
    interface = 'vq.interfaces:UNetBlock'


class VQConditionerRegistry(VQModelRegistry):
    """From the condition of an image to what a network takes."""

    package = 'vq.conditioners'
    interface = 'vq.interfaces:Conditioner'


class VQTextEncoderRegistry(VQConditionerRegistry):
    """Frozen networks that read texts."""

    package = 'vq.conditioners.texts'
    interface = 'vq.interfaces:TextEncoder'


class VQPathRegistry(VQRegistry):
    """How data becomes noise."""

    package = 'vq.sampling.paths'
    interface = 'vq.interfaces:Path'


class VQTimeLawRegistry(VQRegistry):
    """How training draws its times."""

    package = 'vq.sampling.times'
    interface = 'vq.interfaces:TimeLaw'


class VQDiffusionSamplerRegistry(VQRegistry):
    """Functions ``(z (B, C, *cells), drive) -> iterator of z``, from noise to data; built as partials."""

    package = 'vq.sampling.diffusion'
    interface = ''


class VQSamplerRegistry(VQRegistry):
    """Functions ``(logits (..., V), uniform (...)) -> tokens (...)``; built as partials."""

    package = 'vq.sampling.tokens'
    interface = ''


class VQGuidanceRegistry(VQRegistry):
    """Functions ``(step, steps) -> scale of the guidance``; built as partials."""

    package = 'vq.sampling.guidance'
    interface = ''


class VQLossRegistry(VQRegistry):
    package = 'vq.losses'
    interface = 'vq.interfaces:Loss'


class VQGeneratorLossRegistry(VQLossRegistry):
    """Functions ``fake_logits -> scalar``."""

    package = 'vq.losses.adversarial'
    interface = ''  # functions, not ``Loss`` modules


class VQDiscriminatorLossRegistry(VQLossRegistry):
    """Functions ``(real_logits, fake_logits) -> scalar``."""

    package = 'vq.losses.adversarial'
    interface = ''  # functions, not ``Loss`` modules


class VQPenaltyRegistry(VQLossRegistry):
    """Regularisers of a discriminator."""

    package = 'vq.losses.penalties'
    interface = 'vq.interfaces:DiscriminatorPenalty'


class VQGeneratorWeightRegistry(VQLossRegistry):
    package = 'vq.losses.generator_weight'
    interface = 'vq.interfaces:GeneratorWeight'


# running


class VQTaskRegistry(VQRegistry):
    """Models with the steps that a runner calls."""

    package = 'vq.tasks'
    interface = 'vq.interfaces:Task'


class VQFeatureNetworkRegistry(VQRegistry):
    """Frozen networks, whose features metrics compare."""

    package = 'vq.teachers'
    interface = 'vq.interfaces:FeatureNetwork'


class VQTeacherRegistry(VQRegistry):
    """Frozen models that understand images."""

    package = 'vq.teachers'
    interface = 'vq.interfaces:Teacher'


class VQMetricRegistry(VQRegistry):
    package = 'vq.metrics'
    interface = 'vq.interfaces:Metric'


class VQOptimizerRegistry(VQRegistry):
    """torch's optimizers, by their names."""

    package = 'vq.runners.optimizers'


class VQScheduleRegistry(VQRegistry):
    package = 'vq.runners.schedules'
    interface = 'vq.interfaces:Schedule'


class VQStrategyRegistry(VQRegistry):
    package = 'vq.strategies'
    interface = 'vq.interfaces:Strategy'


class VQRunnerRegistry(VQRegistry):
    """Trainers and validators."""

    package = 'vq.runners'
    interface = 'vq.interfaces:Runner'


class VQITRunnerRegistry(VQRunnerRegistry):
    """Runners of image tokenization: ``VQITRunnerRegistry.Tokenizer``."""

    package = 'vq.runners.tokenizer'


class VQSMRunnerRegistry(VQRunnerRegistry):
    """Runners of sequence modelling: ``VQSMRunnerRegistry.Sampler``."""

    package = 'vq.runners.sampler'


class VQCallbackRegistry(VQRegistry):
    package = 'vq.runners.callbacks'
    interface = 'vq.interfaces:Callback'
    retired = {'OptimizeCallback': MOVED_SETTINGS['optimizer']}
