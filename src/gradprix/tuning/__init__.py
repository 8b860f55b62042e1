"""Tuners of one or several hyperparameters."""
