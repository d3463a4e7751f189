"""Sets of still images."""
