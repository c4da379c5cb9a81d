"""Verify the prompts of one server: keep the findings about it, and decide which requests are needed; thread-safe.

For each answered prompt, in this order:

    no token count                      accepted, with the note `prompt_length_unverified` unless the server refuses
    first prompt of the server          requests without a document: does it refuse, does it count cached tokens?
    count of a truncated prompt         verification by halves (halves.py)
    suspicious count                    the same (count_anomalies.py)
    longer than any verified length     verification by repetition (repetition.py)
    anything else                       accepted without a request

One thread verifies by repetition at a time (turn.py). Others that need its result wait if they may, or postpone their
document. Verifications by halves run side by side.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from pipeline.llm.prompt_length.count_anomalies import CountAnomalies
from pipeline.llm.prompt_length.detected_limits import DetectedLimits
from pipeline.llm.prompt_length.halves import verify_by_halves
from pipeline.llm.prompt_length.repetition import (
    NO_COUNT,
    TWO_LIMITS,
    UNVERIFIABLE,
    UNVERIFIED,
    Finding,
    TruncatedCounts,
    VerificationFailedError,
)
from pipeline.llm.prompt_length.token_ratios import TokenRatios
from pipeline.llm.prompt_length.turn import Turn
from pipeline.llm.prompt_length.verification_case import (
    AnyPrompt,
    PromptMeasurements,
    VerificationCase,
    VerificationResult,
    finding_by_repetition,
    finding_without_document,
)

logger = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Failed verifications in a row, while the server completes documents, before its records get the note UNVERIFIED."""
LEAST_SUSPECTED = 1024
"""Least characters of a document that may be suspected: in shorter ones the rest of the prompt decides the count."""


class PromptVerifier:
    """Findings about one server and model. `name`: the server in log messages. `limits`: detected after acceptances."""

    def __init__(self, name: str = "", *, limit_is_set: bool = False) -> None:
        self.name = name
        self.finding = Finding()
        self.limit_is_set = limit_is_set
        self.accepted_count = 0
        self.verifications = 0
        self.limits = DetectedLimits()
        self._ratios = TokenRatios()
        self._longest_bytes = 0
        self._failures = 0
        self._turn = Turn()
        self._inspections = 0
        self._is_inspected = False
        self._anomalies = CountAnomalies()
        self._suspects: set[tuple[int, int]] = set()
        self._lock = threading.RLock()

    @property
    def context_length(self) -> int | None:
        """The detected limit in tokens; None if none was detected."""
        return self.finding.truncation.context_length if self.finding.truncation else None

    @property
    def is_decisive(self) -> bool:
        """Return whether the findings alone decide which prompts were truncated, without another check of counts."""
        finding = self.finding
        has_limit = finding.refuses or finding.truncation is not None
        return not finding.unverified and (has_limit or finding.verified_tokens > 0)

    def estimate(self, weight: int) -> int:
        """Return an upper estimate of the tokens of a prompt of this `weight`, by the densest prompts of this run."""
        with self._lock:
            return self._ratios.estimate(weight)

    def mark_as_refusing(self) -> None:
        """Record that the server is known to refuse prompts that are too long."""
        with self._lock:
            if self.finding == Finding():
                self.finding = Finding(refuses=True)

    def mark_as_unverifiable(self, reason: str) -> None:
        """Record that the counts of this server show nothing about its limit, and log it once."""
        with self._lock:
            if self.finding.unverified:
                return
            if self.limit_is_set:
                self.finding = Finding(refuses=True)
                return
            self.finding = replace(self.finding, unverified=reason)
        advice = "set the provider's `context_length`, so that longer documents fail instead of being cut"
        logger.warning("%s: cannot verify that the server reads whole prompts: %s; %s", self.name, reason, advice)

    def forget_refusal(self) -> None:
        """Discard the finding that the server refuses long prompts: another server has answered instead."""
        with self._lock:
            if self.finding.refuses:
                self.finding = Finding()

    def forget_verified_length(self) -> None:
        """Discard the verified length: the server was away, and may have come back with a smaller context."""
        with self._lock:
            self.finding = replace(self.finding, verified_tokens=0)

    def verify(
        self, case: VerificationCase, *, may_wait: Callable[[], bool] = lambda: True
    ) -> VerificationResult | None:
        """Return whether the prompt was read whole; None: another thread verifies, and this one may not wait for it.

        VerificationFailedError when a verification request failed.
        """
        with self._lock:
            self._longest_bytes = max(self._longest_bytes, case.size_bytes)
        while True:
            finding = self.finding
            if not case.tokens:
                if not finding.refuses:
                    self.mark_as_unverifiable(NO_COUNT)
                return self._record(case, notes=() if self.finding.refuses else (UNVERIFIED,))
            if finding.is_contradicted(case.tokens) and not finding.unverified:
                self.mark_as_unverifiable(TWO_LIMITS)
                continue
            notes = (UNVERIFIED,) if finding.unverified else ()
            if self._needs_inspection(case):
                with self._turn.take(may_wait) as has_turn:
                    if not has_turn:
                        return None
                    self._inspect_once(case)
                continue
            verdict = finding.verdict(case.tokens, size_bytes=case.size_bytes, max_tokens=case.max_tokens)
            if verdict == "halves":
                assert finding.truncation is not None
                return self._verify_halves(case, case.tokens, finding.truncation, notes=notes)
            if verdict in ("whole", "unverified") and self._is_suspected(case, case.tokens):
                return self._verify_suspected(case, case.tokens, notes=notes)
            if verdict != "verify":
                if (accepted := self._accept(case, finding, notes=notes)) is not None:
                    return accepted
                continue
            with self._turn.take(may_wait) as has_turn:
                if not has_turn:
                    return None
                self._verify_by_repetition(case, case.tokens)

    def verify_without_request(self, case: PromptMeasurements) -> VerificationResult | None:
        """Return the result of a verification that needs no request; None where `verify` is needed."""
        with self._lock:
            self._longest_bytes = max(self._longest_bytes, case.size_bytes)
        finding = self.finding
        notes = (UNVERIFIED,) if finding.unverified else ()
        if not case.tokens:
            return self._record(case, notes=() if finding.refuses else notes) if finding.refuses or notes else None
        if self._needs_inspection(case) or (finding.is_contradicted(case.tokens) and not finding.unverified):
            return None
        verdict = finding.verdict(case.tokens, size_bytes=case.size_bytes, max_tokens=case.max_tokens)
        if verdict not in ("whole", "unverified"):
            return None
        if self._is_suspected(case, case.tokens):
            self._suspects.add((case.tokens, case.size_bytes))
            return None
        return self._accept(case, finding, notes=notes)

    def _accept(self, case: AnyPrompt, finding: Finding, *, notes: tuple[str, ...]) -> VerificationResult | None:
        """Accept the prompt under this finding; None when another thread has replaced the finding meanwhile."""
        with self._lock:
            return self._record(case, notes) if self.finding is finding else None

    def _record(self, case: AnyPrompt, notes: tuple[str, ...] = ()) -> VerificationResult:
        with self._lock:
            self.accepted_count += 1
            self.limits.accept(case.document)
            if case.tokens:
                self._ratios.add(case.tokens, case.weight)
        return VerificationResult(notes=notes)

    def _verify_by_repetition(self, case: VerificationCase, tokens: int) -> None:
        """Verify by repetition, unless another thread has done so meanwhile."""
        if self.finding.verdict(tokens, size_bytes=case.size_bytes, max_tokens=case.max_tokens) != "verify":
            return
        try:
            finding = self._new_finding(case, tokens)
        except VerificationFailedError:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                self.mark_as_unverifiable(UNVERIFIABLE)
            raise
        self._failures = 0
        self.verifications += 1
        self._replace_finding(finding)

    def _replace_finding(self, finding: Finding) -> None:
        """Replace the finding, and log a limit."""
        with self._lock:
            is_reported = finding.unverified == self.finding.unverified
            self.finding = finding if is_reported else replace(finding, unverified="")
            if finding.truncation is not None and self.accepted_count:
                self.limits.add(finding.truncation)
        if finding.truncation:
            message = (
                "%s: found a context of %s tokens: it cuts longer prompts without an error; such documents fail as"
            )
            logger.warning(f"{message} prompt_truncated", self.name, finding.truncation.context_length)
        if not is_reported:
            self.mark_as_unverifiable(finding.unverified)

    def inspect(self, case: VerificationCase) -> None:
        """Find out whether the server refuses long prompts, and whether it counts cached tokens, without a document.

        For `pipeline check`; a run does so with its first verification. A failed request changes nothing.
        """
        if self.finding != Finding() or self.limit_is_set or self.verifications:
            return
        with suppress(VerificationFailedError):
            self._replace_finding(finding_without_document(case))

    def _needs_inspection(self, case: AnyPrompt) -> bool:
        """Return whether this server may leave cached tokens out of its counts: a low count then exempts no prompt."""
        if self._is_inspected or self.verifications or self.limit_is_set or case.promised_context:
            return False
        return self.finding == Finding() and self._inspections < MOST_FAILURES

    def _inspect_once(self, case: VerificationCase) -> None:
        """Inspect the server before the first prompt is accepted; else the first verification inspects it."""
        if not self._needs_inspection(case):
            return
        self._inspections += 1
        with suppress(VerificationFailedError):
            self._replace_finding(finding_without_document(case))
            self._is_inspected = True

    def _new_finding(self, case: VerificationCase, tokens: int) -> Finding:
        if not self.verifications and not self._is_inspected:
            finding = finding_without_document(case)
            if finding != Finding():
                return finding
        return finding_by_repetition(
            case,
            tokens,
            longest_bytes=self._longest_bytes,
            verifications=self.verifications,
            verified_tokens=self.finding.verified_tokens,
        )

    def _is_suspected(self, case: AnyPrompt, tokens: int) -> bool:
        """Return whether a prompt of a verified length has a count as if another server had truncated it."""
        if (tokens, case.size_bytes) in self._suspects:
            self._suspects.discard((tokens, case.size_bytes))
            return True
        if not self.verifications or self.finding.unverified not in ("", TWO_LIMITS) or case.chars < LEAST_SUSPECTED:
            return False
        with self._lock:
            return self._anomalies.suspects(tokens, case.size_bytes)

    def _verify_suspected(self, case: VerificationCase, tokens: int, *, notes: tuple[str, ...]) -> VerificationResult:
        """Verify a suspected prompt; if it was truncated, its count is from now on that of a truncated prompt."""
        truncation = TruncatedCounts(tokens, tokens, case.max_tokens, tokens)
        try:
            result = self._verify_halves(case, tokens, truncation, notes=notes)
        except VerificationFailedError:
            with self._lock:  # suspect it again when its document is sent again
                self._suspects.add((tokens, case.size_bytes))
            raise
        with self._lock:
            self._anomalies.settle(tokens, case.size_bytes, is_cut=result.is_cut)
            if result.is_cut:
                unverified = TWO_LIMITS if self.finding.truncation or self.finding.unverified else ""
                self._replace_finding(replace(self.finding, truncation=truncation, unverified=unverified))
        return result

    def _verify_halves(
        self, case: VerificationCase, tokens: int, truncation: TruncatedCounts, *, notes: tuple[str, ...] = ()
    ) -> VerificationResult:
        if len(case.text) < 2:
            return self._record(case, notes)
        result = verify_by_halves(
            case.text, case.send_for_count, tokens=tokens, places=case.places, truncation=truncation, renew=case.renew
        )
        if result.differs:
            self.mark_as_unverifiable(TWO_LIMITS)
        if result.is_cut:
            return VerificationResult(is_cut=True, needed_tokens=result.needed_tokens)
        with self._lock:
            self.limits.verified.add(case.document)
            return self._record(case, notes)
