"""Strategy ``base``, for configs that load this file: see vq/strategies/base.py."""

_export_ = dict(type='BaseStrategy')
