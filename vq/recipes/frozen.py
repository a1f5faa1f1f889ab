"""A trained, frozen tokenizer, for recipes that train another model on top of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vq.core.errors import ConfigError, UserError
from vq.core.recipe import Config, Given, Part, config_of, recipe, short
from vq.core.specs import ImageSize
from vq.recipes.parts import kind_of

if TYPE_CHECKING:
    from vq.io.runs import Run

OF_CODEBOOKS = ('CodebookMetric', 'WindowedCodebookMetric')
# Options that are not passed to the tokenizer's config. image_size: the tokenizer may have been trained at another size, and
# networks with position embeddings are built for that size. The rest selects this tokenizer, and its config may contain a
# frozen tokenizer of its own.
NOT_FOR_IT = ('image_size', 'tokenizer_run', 'tokenizer', 'it_config', 'it_state_dict', 'ir_config', 'ir_state_dict', 'gives')


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A FrozenTokenizer and metrics of its codebook, overrides of both in the tiny form, and its config's custom_imports.

    ``config``: the config that trained it. ``run``: its run, or None.
    """

    part: Part
    tiny: Config
    metrics: Config
    tiny_metrics: Config
    custom_imports: list[str]
    config: Config = dataclasses.field(default_factory=dict)
    run: Run | None = None

    @property
    def imports(self) -> Config:
        """A config with these custom_imports, to merge into the config of the whole model."""
        return dict(custom_imports=self.custom_imports) if self.custom_imports else {}


@recipe()
def frozen_tokenizer(
    given: Given,
    hidden: Sequence[str] = (),
    *,
    tokenizer_run: Annotated[
        str | None, 'NAME or folder of a run, a checkpoint, a converted file, or a catalog name', short('tokenizer')
    ] = None,
    it_config: Annotated[str, 'config that trained the tokenizer', config_of('it')] = 'configs/vqgan/8192_imagenet_ddp.py',
    it_state_dict: Annotated[str | None, 'weights of it_config: run, checkpoint or file; None: of --load-model-from'] = None,
    ir_config: Annotated[str | None, 'config of a tokenizer with a new decoder', config_of('ir')] = None,
    ir_state_dict: Annotated[str | None, 'weights of ir_config, likewise; None: of --load-model-from'] = None,
    gives: Annotated[Literal['codes', 'features'], 'output: code vectors, or features before quantization'] = 'codes',
    image_size: Annotated[ImageSize, 'size of the input images in pixels'] = 256,
) -> Frozen:
    """The tokenizer of ``tokenizer_run``, else of ``ir_config``, else of ``it_config``.

    ``hidden``: further options that are not passed to the tokenizer's config.
    """
    hidden = (*NOT_FOR_IT, *hidden)
    inside: str | None = None
    weights: str | None
    run: Run | None = None
    if tokenizer_run is not None:
        run, config = _of_run(tokenizer_run, 'tokenizer' if given.options.has('tokenizer') else 'tokenizer_run')
        weights, source = str(run.weights), tokenizer_run
    elif ir_config is not None:
        own = dict(it_config=it_config) if given.said('it_config') else {}
        config = given.load(ir_config, 'ir', [name for name in hidden if name != 'it_config'], **own)
        weights, source, inside = ir_state_dict, ir_config, it_state_dict
    else:
        config, weights, source = given.load(it_config, 'it', hidden), it_state_dict, it_config
    model = _at(config, 'trainer', 'model') or _at(config, 'validator', 'model')
    if 'tokenizer' not in model:
        kind = model.get('type') or 'no model'
        raise ConfigError(f'{source} describes {kind}, which has no tokenizer', 'Give the config or run of a tokenizer.')
    tokenizer = model['tokenizer']
    if inside is not None and 'frozen' in tokenizer:
        tokenizer['frozen']['weights'] = inside
    found = _at(config, 'validator', 'metrics')
    metrics = {name: metric for name, metric in found.items() if metric and kind_of(metric) in OF_CODEBOOKS}
    tiny_metrics = {name: metric for name, metric in _at(config, 'tiny', 'validator', 'metrics').items() if name in metrics}
    part = dict(type='FrozenTokenizer', tokenizer=tokenizer, weights=weights, gives=gives, image_size=image_size)
    tiny = dict(tokenizer=_at(config, 'tiny', 'trainer', 'model', 'tokenizer'), image_size=32)
    return Frozen(part, tiny, metrics, tiny_metrics, list(config.get('custom_imports', [])), config, run)


def _of_run(name: str, option: str) -> tuple[Run, Config]:
    """A run of a tokenizer and its config. No code of it is executed; custom_imports need trust or the names of the user."""
    from vq.core import trust
    from vq.io import runs

    try:
        run = runs.find(name)
        imports = trust.noted_modules(run.config.get('custom_imports', []), f"the run '{name}'")
        config = {**run.config, 'custom_imports': imports}
        if run.checkpoint is None and run.spec.tokens is not None:  # a converted file has no metrics
            config['validator'] = {**config['validator'], 'metrics': dict(codebook=dict(type='CodebookMetric'))}
    except ConfigError:
        raise
    except UserError as error:  # any exception but ConfigError would be reported as a mistake in the config file
        raise ConfigError(f'{option}: {error.message}', error.hint) from error
    if run.model.keys() & {'generator', 'denoiser'}:  # which have a tokenizer inside
        used = (run.model.get('tokenizer') or {}).get('weights')
        raise ConfigError(
            f"{option}: '{name}' is a generator" + (f', trained on the tokens of {used}' if used else ''),
            'Give the run of a tokenizer' + (f': tokenizer={_name_of(used)}' if used else '') + '.',
        )
    return run, config


def _name_of(weights: str) -> str:
    """``work_dirs/tok/checkpoints/iter_9`` -> ``tok``; other paths as they are."""
    parts = PurePath(weights).parts
    return '/'.join(parts[1:-2]) if len(parts) > 3 and parts[0] == 'work_dirs' and parts[-2] == 'checkpoints' else weights


def _at(config: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        config = config.get(name) or {}
    return config
