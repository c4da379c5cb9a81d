"""Decide whether a refusal (a 4xx) is due to the document or to trouble of the server.

    4xx ─▶ wait until the server completes another request ─▶ send once more ─▶ 4xx again: the document's own
                 └─ none completes: an outage, and the document is sent again when the server is back

Servers and gateways report transient states with a 4xx, too: LM Studio answers 400 when its model has crashed, TGI 424.
This module sends no document.
"""

from __future__ import annotations

import logging

from pipeline.errors import PROMPT_TOO_LONG, kind_of
from pipeline.llm.replica import Replica
from pipeline.records import ExtractionAttempt

logger = logging.getLogger(__name__)

FRESH_S = 1.0
"""A second refusal is blamed on the document at once if the server has completed a request within this time."""


def is_refusal(attempt: ExtractionAttempt) -> bool:
    """Return whether the error is a 4xx that is neither transient nor a context overflow."""
    if attempt.reason is None or not (attempt.error or "").startswith("http_"):
        return False
    return kind_of(attempt.reason) in ("config", "document") and attempt.reason not in PROMPT_TOO_LONG


def is_settled(
    replica: Replica, attempt: ExtractionAttempt, *, began: float, moment: float, keys: int, is_second: bool
) -> bool:
    """Wait until the server completes a request after a refusal at `moment`; return False if it is in trouble.

    A refusal of settings needs a successful preflight, and the key of the request must be the current one. `began`:
    when the request was sent. `is_second`: it was refused before.
    """
    fields = {"provider": attempt.model.provider, "endpoint": attempt.model.endpoint, "reason": attempt.reason}
    logger.info("request refused; waiting for the server to complete another one", extra=fields)
    if kind_of(attempt.reason or "") == "config":
        if attempt.reason == "unauthorized":
            replica.client.endpoint.reload_key()
        return replica.check(full=True).status == "ok" and replica.client.endpoint.key_changes == keys
    if is_second and replica.completed_at >= began - FRESH_S:
        return True
    return replica.completes_after(moment)
