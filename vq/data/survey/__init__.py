"""What is in a folder of images: its files, classes, sizes, kinds, faults and duplicates, before anything is trained on it."""
