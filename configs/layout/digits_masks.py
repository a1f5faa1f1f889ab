"""Digits by masks: digits.py with a label for each pixel in place of boxes.

    auto_torchrun -m vq.train layout_masks configs/layout/digits_masks.py
    auto_torchrun -m vq.val layout_masks

Labels are the classes of digits where a pixel is at least a quarter as bright as it can be, and 255 elsewhere.

Hardware and hours: not measured. Never trained to its end here, so nothing can be said about what to expect.

Options: those of digits.py.
"""

from vq.recipes import digits_layout

_export_ = digits_layout(_kwargs_, variant='segmentation')
