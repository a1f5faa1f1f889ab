"""The strategy of a run. Options: ``strategy`` (base, ddp, fsdp, xla), ``precision`` (fp32, bf16, fp16), ``accumulate``."""

from vq.core import PyConfig

strategy = PyConfig.load(f'{_kwargs_.get("strategy", "base")}.py')
for option in ('precision', 'accumulate'):
    if option in _kwargs_:
        strategy[option] = _kwargs_[option]

_export_ = dict(trainer=dict(strategy=strategy))
