"""Execution of training runs on this machine or on a Ray cluster; `gradprix.engines` is the public interface."""
