"""A page in the browser that shows a network at work."""
