"""Networks that are trained together, as one stacked program. Nothing here is for users."""
