"""Small training problems of the kinds that people bring, each in one function.

`studies/compatibility.py` races each of them and compares it with a plain PyTorch loop.
"""

from .registry import SITUATIONS, Situation

__all__ = ["SITUATIONS", "Situation"]
