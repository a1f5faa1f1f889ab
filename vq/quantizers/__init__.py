"""From features to tokens: one file per quantizer, code search and codebook updates beside them."""
