"""Gradient noise of landscapes: normal numbers that depend on seed and step alone, in Python and in the browser.

The random integers are those of the counter-based generator Philox4x32-10 (Salmon et al. 2011,
doi:10.1145/2063384.2063405), whose counter is the step.
"""

import math

ROUNDS = 10
MULTIPLIERS, KEY_INCREMENTS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return four random 32-bit integers for a counter and a key of 32-bit integers."""
    a, b, c, d = counter
    k, m = key
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (second >> 32) ^ b ^ k, second & MASK, (first >> 32) ^ d ^ m, first & MASK
        k, m = (k + KEY_INCREMENTS[0]) & MASK, (m + KEY_INCREMENTS[1]) & MASK
    return a, b, c, d


def draw_noise(seed: int, t: int) -> tuple[float, float]:
    """Return two independent standard normal numbers, for the two coordinates of a gradient.

    Args:
        seed: seed of the noise, a non-negative integer below 2³².
        t: number of the step.
    """
    a, b, c, d = philox((t, 0, 0, 0), (seed, 0))
    # Box & Muller 1958, from two uniform numbers with 53 bits; the first is above zero.
    radius = math.sqrt(-2 * math.log(((a >> 5) * 67108864 + (b >> 6) + 1) / 9007199254740992))
    angle = 2 * math.pi * (((c >> 5) * 67108864 + (d >> 6)) / 9007199254740992)
    return radius * math.cos(angle), radius * math.sin(angle)
