"""What others have published: where it is, and what their keys are called here."""
