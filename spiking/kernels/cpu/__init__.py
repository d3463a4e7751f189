"""The CPU kernels: equations become vector code, compiled in the process and run over threads."""
