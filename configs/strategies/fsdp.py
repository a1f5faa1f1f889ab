"""Strategy ``fsdp``, for configs that load this file: see vq/strategies/fsdp.py."""

_export_ = dict(type='FSDPStrategy')
