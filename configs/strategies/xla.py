"""Strategy ``xla``, for configs that load this file: see vq/strategies/xla.py."""

_export_ = dict(type='XLAStrategy')
