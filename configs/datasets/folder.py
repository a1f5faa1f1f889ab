"""Your own images: a folder with train/ and validation/ (or val/), class folders below them or not.

Options: data_root (data/images), image_size (256), augmentation (strong; or none, default, weak, square; None: the images as
they are, which then must all have one size), classes (True: the first folders below a split are the classes), backend (pillow;
cv2 decodes JPEG faster and needs mmcv).
"""

image_size = _kwargs_.get('image_size', 256)
augmentation = _kwargs_.get('augmentation', 'strong')
root = _kwargs_.get('data_root', 'data/images')
classes = _kwargs_.get('classes', True)
backend = _kwargs_.get('backend', 'pillow')


def folder(split, name):
    transform = None if name is None else dict(type=f'VQTransformRegistry.{name}', image_size=image_size)
    return dict(
        type='VQDatasetRegistry.FolderDataset', root=root, split=split, transform=transform, classes=classes, backend=backend
    )


_export_ = dict(
    trainer=dict(dataset=folder('train', augmentation)),
    validator=dict(dataset=folder('validation', None if augmentation is None else 'none')),
)
