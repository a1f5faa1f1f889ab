"""Strategy ``ddp``, for configs that load this file: see vq/strategies/ddp.py."""

_export_ = dict(type='DDPStrategy')
