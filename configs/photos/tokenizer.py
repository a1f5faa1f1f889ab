"""A tokenizer of your own pictures: a folder, with or without one folder for each class in it.

    auto_torchrun -m vq.train tok configs/photos/tokenizer.py --config-options data_root::photos

The same as ``vq train tok photos/tokenizer.py data_root=photos``. docs/photos.md leads from the folder to new pictures.

Measured once, seed 3407, on the drawn pictures of tests/newcomer.py: 302 pictures of four classes at 64 pixels, 28 of them
held out. 1,500 steps took 7.9 minutes of CPU time on a machine shared with many other programs. After 500, 1,000 and 1,500
steps: 23.1, 24.8, 25.3 dB PSNR on the held-out pictures, 96 % of the codes in use. k-means on raw patches with as many tokens
and codes reaches 22.1 dB. Sizes M and L were not trained.

Options: ``data_root`` (the folder), ``image_size`` (64), ``size`` (S, M, L), and others: ``vq.config FILE --options``.
"""

from vq.recipes import photos_tokenizer

_export_ = photos_tokenizer(_kwargs_)
