"""Emu3.5 (arXiv 2510.26583): text and images as tokens of one vocabulary, read and written by one decoder."""
