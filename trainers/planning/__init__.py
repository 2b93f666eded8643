"""`kedge plan`: steps, tokens, memory, hours and cost of a run or a chain before it starts."""
