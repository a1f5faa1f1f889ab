"""Settings of parts that change during training: a temperature, a weight."""

from __future__ import annotations

from vq.core.errors import ConfigError, nearest
from vq.interfaces import Callback, Schedule
from vq.registries import VQCallbackRegistry
from vq.runners.protocol import TrainerLike


@VQCallbackRegistry.register_()
class AnnealCallback(Callback[TrainerLike]):
    """Before each step, the number ``setting`` of the model becomes ``value * schedule(step)``.

    ``setting`` is a path of names from the task: ``tokenizer.quantizer.temperature``. The value depends on the step alone, so
    a resumed run continues with the same values.
    """

    phase = 'anneal'

    def __init__(self, setting: str, value: float, schedule: Schedule) -> None:
        self.setting, self.value, self.schedule = setting, value, schedule

    def bind(self, runner: TrainerLike) -> None:
        super().bind(runner)
        *path, self.name = self.setting.split('.')
        self.part = runner.model
        for depth, step in enumerate([*path, self.name]):
            last = depth == len(path)
            if not hasattr(self.part, step):
                known = [name for name in vars(self.part) if not name.startswith('_')]
                known += [name for name, value in vars(type(self.part)).items() if isinstance(value, property) and value.fset]
                known += [] if last else [name for name, _ in self.part.named_children()]
                kind = type(self.part).__name__
                raise ConfigError(
                    f"AnnealCallback cannot find '{self.setting}': {kind} has no '{step}'{nearest(step, known)}",
                    'Give the path of a number from the task on, e.g. tokenizer.quantizer.temperature.',
                )
            if not last:
                self.part = getattr(self.part, step)
        if not isinstance(getattr(self.part, self.name), int | float):
            raise ConfigError(f"AnnealCallback: '{self.setting}' is not a number", 'Name a setting that is one.')
        self.schedule.bind(runner.iters)

    def before_step(self) -> None:
        value = self.value * self.schedule(self.runner.step + 1)
        setattr(self.part, self.name, self.runner.strategy.as_input(value))
