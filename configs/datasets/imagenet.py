"""ImageNet-1k: 1,281,167 images to train, 50,000 to validate, 1,000 classes; either layout of ImageNetDataset.

Options: data_root (data/imagenet), image_size (256), augmentation (strong; or none, default, weak, square), backend (pillow;
cv2 decodes JPEG faster and needs mmcv).
"""

image_size = _kwargs_.get('image_size', 256)
augmentation = _kwargs_.get('augmentation', 'strong')
root = _kwargs_.get('data_root', 'data/imagenet')
backend = _kwargs_.get('backend', 'pillow')


def imagenet(split, name):
    transform = None if name is None else dict(type=f'VQTransformRegistry.{name}', image_size=image_size)
    return dict(type='VQDatasetRegistry.ImageNetDataset', root=root, split=split, transform=transform, backend=backend)


_export_ = dict(
    trainer=dict(dataset=imagenet('train', augmentation)),
    validator=dict(dataset=imagenet('validation', None if augmentation is None else 'none')),
)
