"""What `benchmarks/gpu.py` does, a file for each part."""
