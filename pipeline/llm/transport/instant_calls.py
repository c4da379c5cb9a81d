"""System calls on a socket that never wait, made without giving up the GIL.

Python's own methods release it for each call. Among many threads another one takes it at once, and the caller waits
for its turn: two switches of threads, which cost more than the call. Both calls here return at once (MSG_DONTWAIT).
"""

from __future__ import annotations

import errno
import socket
from typing import Any

try:
    import ctypes  # some builds of Python lack it

    _LIBRARY: Any = ctypes.PyDLL(None, use_errno=True)
    _SEND, _RECEIVE = _LIBRARY.send, _LIBRARY.recv
except (ImportError, OSError, AttributeError, TypeError):
    _LIBRARY = None
else:
    _SEND.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    _RECEIVE.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    _SEND.restype = _RECEIVE.restype = ctypes.c_ssize_t
    _BYTE = ctypes.create_string_buffer(1)

_NO_WAIT = getattr(socket, "MSG_DONTWAIT", 0)


def send_now(sock: socket.socket, data: bytes) -> int:
    """Return how many bytes the kernel takes now; OSError as for `socket.send`, BlockingIOError when it takes none."""
    if _LIBRARY is not None and (sent_bytes := _SEND(sock.fileno(), data, len(data), _NO_WAIT)) >= 0:
        return int(sent_bytes)
    return sock.send(data, _NO_WAIT)  # it raises the error


def is_silent(sock: socket.socket) -> bool:
    """Return whether the socket has nothing to read now: no byte, no end and no error."""
    if _LIBRARY is not None:
        received = _RECEIVE(sock.fileno(), _BYTE, 1, _NO_WAIT | socket.MSG_PEEK)
        return received < 0 and ctypes.get_errno() in (errno.EAGAIN, errno.EWOULDBLOCK)
    try:
        sock.recv(1, _NO_WAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
