"""What is measured over a validation pass."""
