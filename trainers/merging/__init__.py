"""Weights of checkpoints put together: averages, adapters onto their bases, and how far two lie apart."""
