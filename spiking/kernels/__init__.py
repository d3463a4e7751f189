"""Fused multi-step kernels behind `spiking.functional`."""
