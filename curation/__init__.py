"""The data plane: rows, signals, rules, mixtures and audits. Imports nothing beyond the standard library here,
so that shims in foreign environments may import the package cheaply."""

__version__ = "0.1.0"
