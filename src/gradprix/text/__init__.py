"""Formatting of results as sentences."""
