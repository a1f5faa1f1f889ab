"""Data for a trainer and a validator: a dataset and how to load it.

Options: dataset (digits; or folder, imagenet, or the path of a config of your own without .py), batch_size (16) and
val_batch_size (as batch_size), of one rank, or of all ranks together with batch_size_in_total (False);
num_workers (4; for digits 0, which are in memory), bad_images (raise; or skip, for training on files found on the web). The
dataset's own options, image_size, augmentation, data_root and so on, stand in its file and go straight to it.

Augmentation concerns training; the validator always sees the centre crop ('none').
"""

from vq.core import PyConfig

dataset = _kwargs_.get('dataset', 'digits')
batch_size = _kwargs_.get('batch_size', 16)
val_batch_size = _kwargs_.get('val_batch_size', batch_size)
num_workers = _kwargs_.get('num_workers', 0 if dataset == 'digits' else 4)
batch_size_in_total = _kwargs_.get('batch_size_in_total', False)
bad_images = _kwargs_.get('bad_images', 'raise')


def loading(size):
    return dict(
        batch_size=size,
        num_workers=num_workers,
        pin_memory=True,
        batch_size_in_total=batch_size_in_total,
        bad_images=bad_images,
    )


_export_ = PyConfig.load(f'{dataset}.py')
_export_.update(
    dict(
        trainer=dict(dataloader=loading(batch_size)),
        validator=dict(dataloader=loading(val_batch_size)),
    )
)
