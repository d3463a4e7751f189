"""Token reduction: which tokens run through a block, and who decides."""
