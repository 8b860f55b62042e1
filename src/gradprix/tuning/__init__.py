"""Tuners: what to try next, one hyperparameter or several."""
