"""The 1,797 handwritten digits of scikit-learn, enlarged to image_size: 1,437 to train, 180 to validate.

Options: image_size (32), augmentation (None: the picture as it is; or none, default, weak, strong,
square).
"""

image_size = _kwargs_.get('image_size', 32)
augmentation = _kwargs_.get('augmentation')


def digits(split, name):
    transform = None if name is None else dict(type=f'VQTransformRegistry.{name}', image_size=image_size)
    return dict(type='VQDatasetRegistry.DigitsDataset', split=split, image_size=image_size, transform=transform)


_export_ = dict(
    trainer=dict(dataset=digits('train', augmentation)),
    validator=dict(dataset=digits('validation', None if augmentation is None else 'none')),
)
