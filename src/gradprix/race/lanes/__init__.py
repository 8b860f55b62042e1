"""Networks that are trained together, as one stacked program."""
