"""The quickstart: generated skills, a tiny real model, and the whole journey walked by kedge's own commands."""
