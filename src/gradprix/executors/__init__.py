"""Execution of training on this machine or a Ray cluster; `gradprix.engines` is the public interface."""
