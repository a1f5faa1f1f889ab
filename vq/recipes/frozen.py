"""A trained tokenizer that stays as it is, for recipes of what learns on top of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from vq.core.errors import ConfigError, UserError
from vq.core.recipe import Config, Given, Part, config_of, recipe
from vq.recipes.parts import kind_of

OF_CODEBOOKS = ('CodebookMetric', 'WindowedCodebookMetric')
# The tokenizer may have learned from images of another size, which networks with positions are built for. What is said of
# the tokenizer itself is not for its config either, which may build upon one too.
NOT_FOR_IT = ('image_size', 'tokenizer_run', 'it_config', 'it_state_dict', 'ir_config', 'ir_state_dict', 'gives')


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A FrozenTokenizer and metrics of its codebook, what changes in both when tiny, and modules that its config imports."""

    part: Part
    tiny: Config
    metrics: Config
    tiny_metrics: Config
    custom_imports: list[str]

    @property
    def imports(self) -> Config:
        """What a config around it has to say of these modules."""
        return dict(custom_imports=self.custom_imports) if self.custom_imports else {}


@recipe()
def frozen_tokenizer(
    given: Given,
    hidden: Sequence[str] = (),
    *,
    tokenizer_run: Annotated[str | None, 'NAME or folder of a run, a checkpoint, a converted file, or a catalog name'] = None,
    it_config: Annotated[str, 'config that trained the tokenizer', config_of('it')] = 'configs/vqgan/8192_imagenet_ddp.py',
    it_state_dict: Annotated[str | None, 'weights of it_config: a run, checkpoint or file; None: of --load-model-from'] = None,
    ir_config: Annotated[str | None, 'config of a tokenizer with a new decoder', config_of('ir')] = None,
    ir_state_dict: Annotated[str | None, 'weights of ir_config: the same; None: of --load-model-from'] = None,
    gives: Annotated[Literal['codes', 'features'], 'code vectors, or features before they are quantized'] = 'codes',
    image_size: Annotated[int, 'pixels a side of the images to come'] = 256,
) -> Frozen:
    """``tokenizer_run``, or ``ir_config``, or ``it_config``, with weights. ``hidden``: options that are not for its config."""
    hidden = (*NOT_FOR_IT, *hidden)
    inside: str | None = None
    weights: str | None
    if tokenizer_run is not None:
        config, weights, source = *_of_run(tokenizer_run), tokenizer_run
    elif ir_config is not None:
        own = dict(it_config=it_config) if given.said('it_config') else {}
        config = given.load(ir_config, 'ir', [name for name in hidden if name != 'it_config'], **own)
        weights, source, inside = ir_state_dict, ir_config, it_state_dict
    else:
        config, weights, source = given.load(it_config, 'it', hidden), it_state_dict, it_config
    model = _at(config, 'trainer', 'model') or _at(config, 'validator', 'model')
    if 'tokenizer' not in model:
        kind = model.get('type') or 'no model'
        raise ConfigError(f'{source} describes {kind}, which has no tokenizer', 'Give that of a tokenizer.')
    tokenizer = model['tokenizer']
    if inside is not None and 'frozen' in tokenizer:
        tokenizer['frozen']['weights'] = inside
    found = _at(config, 'validator', 'metrics')
    metrics = {name: metric for name, metric in found.items() if metric and kind_of(metric) in OF_CODEBOOKS}
    tiny_metrics = {name: metric for name, metric in _at(config, 'tiny', 'validator', 'metrics').items() if name in metrics}
    part = dict(type='FrozenTokenizer', tokenizer=tokenizer, weights=weights, gives=gives, image_size=image_size)
    tiny = dict(tokenizer=_at(config, 'tiny', 'trainer', 'model', 'tokenizer'), image_size=32)
    return Frozen(part, tiny, metrics, tiny_metrics, list(config.get('custom_imports', [])))


def _of_run(name: str) -> tuple[Config, str]:
    """Config and weights of a run. Nothing of it is executed; modules that register its parts need trust."""
    from vq.io import runs

    try:
        run = runs.find(name)
        config = {**run.config, 'custom_imports': run.custom_imports}
        if run.checkpoint is None and run.spec.tokens is not None:  # a converted file has no metrics
            config['validator'] = {**config['validator'], 'metrics': dict(codebook=dict(type='CodebookMetric'))}
        return config, str(run.weights)
    except ConfigError:
        raise
    except UserError as error:  # any other kind would be a mistake of the recipe
        raise ConfigError(f'tokenizer_run: {error.message}', error.hint) from error


def _at(config: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        config = config.get(name) or {}
    return config
