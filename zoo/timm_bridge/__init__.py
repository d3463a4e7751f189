"""timm's own models beside ours."""
