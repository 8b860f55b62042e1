"""Statistics of races: permutation tests, simultaneous confidence intervals, and interim analyses."""
