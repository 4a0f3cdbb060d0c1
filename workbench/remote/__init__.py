"""Remote: the same trace, run where the weights are."""
