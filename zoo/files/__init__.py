"""What lies on disk: layout, checkpoints, descriptions, cards."""
