"""From a command line to a checked config: load, tiny form, overrides, check."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.assembly.callbacks import refuse_moved, settle_callbacks, settle_runner, tell_moved
from vq.assembly.ranks import settle_strategy
from vq.core import trust
from vq.core.config import PyConfig
from vq.core.environment import dry_run
from vq.core.errors import ConfigError, UserError, listing, nearest

logger = logging.getLogger('vq')

TOP_LEVEL = ('trainer', 'validator', 'custom_imports', 'tiny', 'description')


def compose(
    file: str,
    options: dict[str, Any],
    overrides: dict[str, Any],
    autocast: bool = False,
    tiny: bool | None = None,
    trusted: bool = False,
) -> PyConfig:
    """The composed config of a command. ``tiny`` (default: DRY_RUN in the environment) applies its tiny form before overrides.

    ``trusted``: runs that the config opens may name modules to import.
    """
    with trust.trusting(trusted):
        config = PyConfig.load(find_config(file), **options)
    for key in config:
        if key not in TOP_LEVEL:
            raise ConfigError(
                f"{file}: unknown top-level name '{key}'{nearest(key, TOP_LEVEL)}",
                f'A config has {listing(TOP_LEVEL)}; begin the names of helper variables with an underscore, or use _export_.',
            )
    import_custom(config)
    if dry_run() if tiny is None else tiny:
        apply_tiny(config, file)
    moved = settle_callbacks(config)
    known = set(config)
    for path, value in overrides.items():
        refuse_moved(config, path)
        config.override({path: value})
        moved += settle_callbacks(config)  # positions in the next path refer to the new order
    tell_moved(moved)
    for key in sorted(set(config) - known):
        raise ConfigError(f"override '.{key}': the config has no '{key}'{nearest(key, known)}", f'It has: {listing(known)}.')
    if autocast:
        for runner in ('trainer', 'validator'):
            if 'strategy' in config.get(runner, {}):
                config[runner]['strategy']['precision'] = 'bf16'
    settle_strategy(config)
    if dry_run():
        from vq.assembly.frozen_weights import settle_steps

        settle_steps(config)
    return config


def find_config(file: str) -> str | Path:
    """The config file that CONFIG names; for a run's folder, the config of its newest checkpoint."""
    from vq.io import runs

    if not Path(file).is_dir():
        return file
    run = runs.find(file)
    place = run.checkpoint or run.weights.parent
    found = next((place / name for name in (runs.CONFIG, runs.OLD_CONFIG) if (place / name).is_file()), None)
    if found is None:
        raise ConfigError(f'{file} is a folder, but not a run with a config', 'Give a config file, or a run.')
    return found


def own_weights(options: Any) -> list[str]:
    """``--load-model-from`` of a command; if it is left out, the newest checkpoint of the run NAME."""
    from vq.io import runs

    if options.load_model_from:
        return list(options.load_model_from)
    try:
        return [str(runs.find(options.name, options.work_dir or runs.RUNS).weights)]
    except UserError as error:
        raise UserError(f'--load-model-from is left out, and {error.message}', error.hint) from error


def config_of(options: Any) -> str:
    """CONFIG of a command. If it is left out, the config of the run whose weights are loaded, of the last run if several."""
    from vq.io import runs

    options.config_given = options.config is not None
    if options.config is not None:
        return str(options.config)
    name = [getattr(options, 'name', None), *options.load_model_from][-1]
    try:
        run = runs.find(name, getattr(options, 'work_dir', None) or runs.RUNS)
    except UserError as error:
        raise ConfigError(f'CONFIG is left out, and {error.message}', f'Give CONFIG. {error.hint}') from error
    if run.checkpoint is None:
        raise ConfigError(f'{run.weights} is a file, and does not say what config it belongs to', 'Give CONFIG.')
    return str(run.checkpoint)


def import_custom(config: PyConfig) -> None:
    """Import the user's modules, which register their parts. The working directory is on ``sys.path``."""
    trust.import_modules(trust.module_names(config.get('custom_imports', []), 'the config'))


def apply_tiny(config: PyConfig, file: str) -> None:
    """Merge the config's ``tiny`` into it: embedded data, small widths, few iterations."""
    if 'tiny' not in config:
        raise ConfigError(f'DRY_RUN is set, and {file} has no tiny form', "Give the config a dict 'tiny' that shrinks it.")
    config.update(config['tiny'])
    config.settle()


def runner_config(config: PyConfig, which: str) -> PyConfig:
    """``config.trainer`` or ``config.validator``; a validator takes the trainer's model and strategy unless it has its own."""
    if which not in config:
        raise ConfigError(f"the config has no '{which}'", f'Add {which}=dict(type=..., dataset=..., dataloader=...).')
    found = PyConfig(config[which])
    if which == 'validator' and 'trainer' in config:
        for key in ('model', 'strategy'):
            if key not in found and key in config['trainer']:
                found[key] = config['trainer'][key]
        if 'model' not in config[which] and 'model' in found:
            found['model'] = _for_evaluation(found['model'])
    return found


def _for_evaluation(model: PyConfig) -> PyConfig:
    """A model for a validator, from the trainer: the task of ``evaluated_as``, without settings that only training uses."""
    from vq.core.parameters import parameters_of
    from vq.registries import VQTaskRegistry

    if not isinstance(model, Mapping) or 'type' not in model:
        return model
    kind = getattr(VQTaskRegistry.parse(model['type'])[1], 'evaluated_as', None)
    if kind is None:
        return model
    kept = parameters_of(VQTaskRegistry.parse(kind)[1])
    return PyConfig({'type': kind, **{key: value for key, value in model.items() if key in kept}})


def digest(config: Any) -> str:
    """A short hash of a part of a config, independent of the order of its keys."""
    return hashlib.sha256(PyConfig(part=_ordered(config)).dumps().encode()).hexdigest()[:16]


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value.keys(), key=str)}
    return type(value)(map(_ordered, value)) if isinstance(value, list | tuple) else value


def checked(config: PyConfig, which: str) -> PyConfig:
    """The runner's config, checked against the signatures of everything it names; one error lists all problems."""
    from vq.core.check import check_config
    from vq.registries import VQRunnerRegistry

    found = runner_config(config, which)
    settle_runner(found, which)  # the config may have changed after it was composed
    check_config(VQRunnerRegistry, found, which)
    return found
