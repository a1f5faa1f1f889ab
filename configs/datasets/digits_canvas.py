"""Digits at random places of a canvas of image_size (64), with boxes and masks: 20,000 to train, 500 to validate."""

from vq.recipes import digits_canvas

_export_ = digits_canvas(_kwargs_)
