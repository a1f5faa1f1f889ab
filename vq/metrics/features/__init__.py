"""What is measured between two sets of features. Networks stay outside: these functions know numbers only."""
