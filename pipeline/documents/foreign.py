"""What a parser that is not ours may raise for bytes it does not understand.

It must not grow to a broad `except`: what is not named here is a fault, and is to be looked at.
"""

from __future__ import annotations

import struct
import zlib

MISHAPS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
