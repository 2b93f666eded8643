"""Duplicates within and across sources: who stays, how near rows are found, and how each pair is proved.

One order decides everywhere which row of a group represents it: held-out rows first, then the source's priority
(`source_priority` of kedge.yaml, then the name), then quality (a larger value of a named signal), then row_id. It
depends on the rows alone, never on which came first.
"""
