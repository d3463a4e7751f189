"""The command ``fulgurite``: fit, validate, test, predict, models."""
