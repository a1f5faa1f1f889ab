"""What learns tokens and draws new ones."""
