"""Update rules that move a codebook outside of gradient descent: one file each."""
