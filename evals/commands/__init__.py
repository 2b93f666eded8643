"""The commands of evaluation: one file per group."""
