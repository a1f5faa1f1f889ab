"""Networks from code vectors to images."""
