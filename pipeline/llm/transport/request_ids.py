"""Ids of requests (`X-Request-Id`); their form shows when a reply carries the id of another request.

vLLM answers with the id `chatcmpl-` + X-Request-Id; gateways may return the header. This module sends nothing.
"""

from __future__ import annotations

import os
import random
import re

HEADER = "X-Request-Id"
_PREFIX = "xpipe-"
_RANDOM = random.Random()
"""Seeded once per process: with a system call for each id, the thread would wait for its turn each time."""
os.register_at_fork(after_in_child=_RANDOM.seed)
_OURS = re.compile(_PREFIX + "[0-9a-f]{24}")


def new_request_id() -> str:
    """Return an id that no other request has, in this process or any other."""
    return f"{_PREFIX}{_RANDOM.getrandbits(96):024x}"


def names_another(value: object, request_id: str) -> bool:
    """Return whether an id in a reply carries the id of a request of this program other than `request_id`.

    Any other id proves nothing: many servers and gateways make ids of their own.
    """
    if not request_id or not isinstance(value, str) or _PREFIX not in value:
        return False
    return any(other_id != request_id for other_id in _OURS.findall(value))
