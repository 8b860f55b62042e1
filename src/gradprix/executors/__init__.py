"""Execution of training runs on this machine or on a Ray cluster; `gradprix.engines` is the public interface."""

from .class_bodies import include_class_bodies

include_class_bodies()
