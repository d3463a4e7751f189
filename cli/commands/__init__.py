"""The commands beside those of Lightning."""
