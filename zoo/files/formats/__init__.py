"""Files of others, read within bounds: archives and tensors of torch, safetensors, JSON."""
