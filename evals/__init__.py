"""Harnesses and drift: scores per checkpoint, and verdicts over a chain of checkpoints."""
