"""Image tokenization: tokenizers trained to turn images into tokens and back."""
