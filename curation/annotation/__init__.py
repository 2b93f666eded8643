"""Annotation: pairs go out to people (or a judge), votes come back, and agreed votes become training rows."""
