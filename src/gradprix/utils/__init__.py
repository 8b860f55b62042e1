"""Devices, files and streams: helpers that several packages share."""
