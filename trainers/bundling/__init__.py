"""Folders that train a run without kedge, and the record by which their checkpoints come home."""
