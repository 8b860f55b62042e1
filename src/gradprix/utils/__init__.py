"""Devices and files: what several packages need and no package owns."""
