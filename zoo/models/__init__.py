"""One architecture a file; each registers its entries, here and with timm, when it is imported."""
