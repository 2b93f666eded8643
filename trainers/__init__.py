"""Thin wrappers around trainers: a run file becomes the framework's own configuration and its own trainer runs."""
