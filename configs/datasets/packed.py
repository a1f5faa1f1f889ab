"""Images that ``vq data pack`` wrote: data_root is its output folder, with a split in each folder.

    vq data pack --max-resolution 256 --output-folder packed --train-folder photos/train --validation-folder photos/validation
    dataset=packed data_root=packed

The option data=packed does the same for any dataset.
"""

from vq.recipes import one_dataset

_export_ = one_dataset(_kwargs_, 'folder', data='packed')
