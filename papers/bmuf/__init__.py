"""Block momentum: ranks that train apart for a block, and a filter for what they have learnt in it."""
