"""The launch audit: what the trainer will do to every token, before it does it."""
