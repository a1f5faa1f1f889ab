"""Named loss terms."""
