"""Statistics of races: permutation tests, simultaneous intervals, interim analyses."""
