"""The one error of the transport, and the conversion of all errors of requests, urllib3 and sockets to it."""

from __future__ import annotations

import http.client

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from pipeline.llm.transport.connection import StaleConnectionError


class CallFailedError(Exception):
    """No usable reply: `error` is the wire-level text, `reason` its class (errors.REASONS).

    `sent` is False when the server cannot have started the work; `lost`: the server disappeared during the work.
    `refused`: no server listens at that port.
    """

    def __init__(
        self, error: str, reason: str, *, sent: bool = True, lost: bool = False, refused: bool = False
    ) -> None:
        super().__init__(error)
        self.error = error
        self.reason = reason
        self.sent = sent
        self.lost = lost
        self.refused = refused


_CUT_OFF = (http.client.RemoteDisconnected, http.client.IncompleteRead)


def call_failure(cause: BaseException, *, after_stale: bool = False, proxy: str | None = None) -> CallFailedError:
    """Return the failure for an error of requests, urllib3 or a socket.

    `after_stale`: the previous connection broke when this request was sent, perhaps because of it, so a refused
    connection counts as a lost server. `proxy`: the proxy of the request, which may have caused the error.
    """
    root = root_cause(cause)
    details = _details(root) + (f" (through the proxy {proxy})" if proxy else "")
    if isinstance(root, (NewConnectionError, ConnectTimeoutError)) or isinstance(
        cause, (requests.ConnectTimeout, requests.exceptions.ProxyError, requests.exceptions.SSLError)
    ):
        refused = isinstance(root, NewConnectionError) and isinstance(root.__cause__, ConnectionRefusedError)
        return CallFailedError(
            f"connection_error: {details}",
            "connection_error",
            sent=after_stale,
            lost=after_stale,
            refused=refused and proxy is None,
        )
    if isinstance(cause, (requests.Timeout, ReadTimeoutError)) or isinstance(root, TimeoutError):
        return CallFailedError("timeout", "timeout")
    is_no_http = isinstance(root, http.client.HTTPException) and not isinstance(root, _CUT_OFF)
    if is_no_http or isinstance(cause, DecodeError):
        return CallFailedError("bad_response", "bad_response")
    lost = isinstance(root, (ConnectionError, ProtocolError, *_CUT_OFF))
    return CallFailedError(f"connection_error: {details}", "connection_error", lost=lost)


def root_cause(cause: BaseException) -> BaseException:
    """Return the innermost error; requests and urllib3 wrap it in `reason` or in their arguments."""
    for _ in range(8):
        inner = getattr(cause, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in cause.args if isinstance(arg, BaseException)), None)
        if inner is None or isinstance(cause, NewConnectionError):
            return cause
        cause = inner
    return cause


def _details(root: BaseException) -> str:
    """Return the cause in stable words, without addresses of objects or URLs."""
    origin = root.__cause__ if isinstance(root, (NewConnectionError, StaleConnectionError)) else root
    text = str(origin or root) or type(root).__name__
    return text.split(": ", 1)[1] if text.startswith(("HTTPConnection(", "HTTPSConnection(", "<urllib3")) else text
