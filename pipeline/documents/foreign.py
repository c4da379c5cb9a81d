"""Exceptions that a third-party parser may raise for invalid bytes.

It must not become a broad `except`: any other exception is a bug and has to be investigated.
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
