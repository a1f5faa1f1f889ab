"""Digits at boxes: a small UNet with region attention draws the digits asked for where boxes ask for them.

    auto_torchrun -m vq.train layout_digits configs/layout/digits.py
    auto_torchrun -m vq.sample layout_digits --layout layout.json --guidance 2

    [{"boxes": [[4, 8, 20, 30], [34, 30, 52, 56]], "categories": [3, 7]}]

1 to 4 of scikit-learn's digits lie at random places of a canvas of 64 x 64 pixels: ``DigitsCanvasDataset``, no download. The
network works on patches of 4 x 4 pixels and estimates x0.

Hardware and hours: 900 steps take 6.5 minutes on one core (AMD EPYC). Measured by benchmarks/layout_digits.py on held-out
canvases: a classifier assigns 96 % of the crops of boxes to the digit asked for (99 % of real ones), 10 % where the digits
asked for are exchanged, and 11 % without the layout.

Options: ``variant`` (of ``RegionAttention``), ``layout_drop``, ``layout_dim``, those of ../ddpm/mnist.py, and those that
``vq.config FILE --options`` prints.
"""

from vq.recipes import digits_layout

_export_ = digits_layout(_kwargs_)
