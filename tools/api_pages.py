"""Write ``docs/api.md``: every part with its first line and its parameters. A test compares the page with the parts.

python tools/api_pages.py
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vq.core.parameters import describe, parameters_of
from vq.core.registry import TreeMeta
from vq.registries import VQRegistry

PAGE = Path(__file__).parents[1] / 'docs/api.md'
TITLES = {
    'VQModelRegistry': 'Tokenizers',
    'VQEncoderRegistry': 'Encoders',
    'VQDecoderRegistry': 'Decoders',
    'VQFeatureDecoderRegistry': 'Feature decoders',
    'VQConnectorRegistry': 'Connectors',
    'VQLatentMapRegistry': 'Latent maps',
    'VQPerturbationRegistry': 'Perturbations of latents',
    'VQQuantizerRegistry': 'Quantizers',
    'VQCodebookUpdateRegistry': 'Updates of codebooks',
    'VQDiscriminatorRegistry': 'Discriminators',
    'VQGeneratorRegistry': 'Generators',
    'VQTeacherRegistry': 'Teachers',
    'VQCausalNetworkRegistry': 'Networks of autoregressive generators',
    'VQContinuousGeneratorRegistry': 'Generators of continuous tokens',
    'VQTokenHeadRegistry': 'Heads of continuous tokens',
    'VQDenoiserRegistry': 'Denoisers',
    'VQUNetBlockRegistry': 'Blocks of UNets',
    'VQConditionerRegistry': 'Conditioners',
    'VQTextEncoderRegistry': 'Text encoders',
    'VQPathRegistry': 'Paths of diffusion',
    'VQTimeLawRegistry': 'Laws of training times',
    'VQDiffusionSamplerRegistry': 'Samplers of diffusion',
    'VQSamplerRegistry': 'Samplers of a token',
    'VQGuidanceRegistry': 'Guidance',
    'VQLossRegistry': 'Losses',
    'VQGeneratorLossRegistry': 'Adversarial losses of the generator',
    'VQDiscriminatorLossRegistry': 'Adversarial losses of the discriminator',
    'VQPenaltyRegistry': 'Penalties of the discriminator',
    'VQGeneratorWeightRegistry': 'Weights of the adversarial loss',
    'VQMetricRegistry': 'Metrics',
    'VQFeatureNetworkRegistry': 'Feature networks',
    'VQDatasetRegistry': 'Datasets',
    'VQTransformRegistry': 'Transforms',
    'VQTaskRegistry': 'Tasks',
    'VQRunnerRegistry': 'Runners',
    'VQITRunnerRegistry': 'Runners of image tokenization',
    'VQSMRunnerRegistry': 'Runners of sequence modelling',
    'VQCallbackRegistry': 'Callbacks',
    'VQOptimizerRegistry': 'Optimizers',
    'VQScheduleRegistry': 'Schedules',
    'VQStrategyRegistry': 'Strategies',
}
HEAD = """# Parts

Every part that a config can name by `type`, with its parameters. `tools/api_pages.py` writes this page, and a test compares
it with the code. The docstring of a part has its equation and shapes: `help(VectorQuantizer)`. [own_parts.md](own_parts.md)
adds parts of your own.

A part is a class or function that is imported from its package. A package imports torch when its first part is asked for, and
`dir(vq.quantizers)` lists its parts.

```python
import torch

from vq.quantizers import VectorQuantizer

quantizer = VectorQuantizer(codebook_size=256, embedding_dim=8).eval()
quantized = quantizer(torch.zeros(2, 4, 4, 8))
quantized.tokens.shape  # -> torch.Size([2, 4, 4])
quantized.z.shape  # -> torch.Size([2, 4, 4, 8])
```

In a config the same part is `dict(type='VectorQuantizer', codebook_size=256, embedding_dim=8)`. Parameters without a default
are required, unless the part around it fills them in (`in_channels` of a decoder, say).
"""


def page() -> str:
    return '\n'.join([HEAD, *(line for registry in VQRegistry.tree() for line in section(registry))]).rstrip() + '\n'


def section(registry: TreeMeta) -> Iterator[str]:
    """The heading of a registry, and its parts."""
    registry.load_package()
    found = {name: part for name, part in registry.data.items() if part.__module__.startswith('vq.')}
    if not found:
        return
    yield f'## {TITLES[registry.__name__]}'
    yield ''
    about = (registry.__doc__ or '').replace('``', '`')
    said = f' {about.strip()}' if about and registry.__doc__ != VQRegistry.__doc__ else ''
    yield f'`{registry.__name__}`, in `{registry.package}`.{said}'
    yield ''
    for name, part in sorted(found.items()):
        also = '' if part.__name__ == name else f' (`{part.__module__}.{part.__name__}`)'
        yield f'- **`{name}`**{also}: {first_line(part)}'
        settings = [parameter(each) for each in parameters_of(part).values()]
        yield f'  <br>{", ".join(settings)}' if settings else '  <br>no parameters'
    yield ''


def first_line(part: Any) -> str:
    """The first sentence or line of a docstring, as one line of Markdown."""
    text = inspect.cleandoc(part.__doc__ or '').partition('\n\n')[0].replace('\n', ' ').replace('``', '`')
    sentence = re.match(r'.*?[.:](?=\s|$)', text)
    return escaped((sentence[0] if sentence and len(text) > 120 else text).rstrip(':'))


def escaped(text: str) -> str:
    """Outside of code, marks of Markdown are letters."""
    return '`'.join(
        piece if place % 2 else re.sub(r'([*_<|\[\]])', r'\\\1', piece) for place, piece in enumerate(text.split('`'))
    )


def parameter(found: Any) -> str:
    default = '' if found.required else f' = {written(found.default)}'
    return f'`{found.name}: {describe(found.annotation)}{default}`'


def written(value: Any) -> str:
    """A default as code; objects that have no literal by their type."""
    text = repr(value)
    return f'{type(value).__name__}(...)' if text.startswith('<') else text


def main() -> int:
    PAGE.write_text(page(), encoding='utf-8')
    print(f'wrote {PAGE}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
