"""What is known of how one server treats long prompts, and the requests that find it out; safe for many threads.

One thread proves at a time; others that need the same proof wait for it while they may, or give their document back.
Halves are proved side by side. It asks only through what its caller hands it, and judges only counts (repetition.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from pipeline.llm.prompt_length.count_watch import CountWatch
from pipeline.llm.prompt_length.found_limits import FoundLimits
from pipeline.llm.prompt_length.halves import by_halves
from pipeline.llm.prompt_length.proof_case import Case, Measured, Verified, by_repetition, without_document
from pipeline.llm.prompt_length.repetition import (
    NO_COUNT,
    TWO_LIMITS,
    UNPROVABLE,
    Cut,
    Finding,
    Probe,
    ProofFailedError,
)
from pipeline.llm.prompt_length.token_ratios import TokenRatios

logger = logging.getLogger(__name__)

UNVERIFIED = "prompt_length_unverified"
"""The note of a record whose document may have been cut without a sign of it."""
MOST_FAILURES = 3
"""Proofs that may fail in a row while the server completes documents, before its records are noted as unverified."""
LOOK_S = 0.25
LEAST_SUSPECTED = 1024
"""Characters of a document that is suspected to be cut; in shorter ones the prompt around it decides the count."""


class PromptProofs:
    """The finding on one server and model, and who is at work on it; `name` is how logs call the server.

    `limits`: what was found after prompts had been accepted.
    """

    def __init__(self, name: str = "", *, limit_is_set: bool = False) -> None:
        self.name = name
        self.finding = Finding()
        self.limit_is_set = limit_is_set
        self.accepted = 0
        self.proofs = 0
        self.limits = FoundLimits()
        self._ratios = TokenRatios()
        self._longest_bytes = 0
        self._failures = 0
        self._proving = False
        self._looks = 0
        self._has_looked = False
        self._watch = CountWatch()
        self._suspects: set[tuple[int, int]] = set()
        self._changed = threading.Condition()

    @property
    def context_length(self) -> int | None:
        """The limit that was found, in tokens; None while none was."""
        return self.finding.cut.context_length if self.finding.cut else None

    @property
    def decides(self) -> bool:
        """Return whether what was proved says which prompts are cut, so that nothing else has to judge their counts."""
        finding = self.finding
        return not finding.unverified and (finding.refuses or finding.cut is not None or finding.proven > 0)

    def estimate(self, weight: int) -> int:
        """Return how many tokens a prompt of this `weight` may have, by this run's densest prompts, and a margin."""
        with self._changed:
            return self._ratios.estimate(weight)

    def exempt(self) -> None:
        """Take the server as one that is known to refuse what is too long."""
        with self._changed:
            if self.finding == Finding():
                self.finding = Finding(refuses=True)

    def distrust(self, why: str) -> None:
        """Note that the counts of this server prove nothing, and say so once."""
        with self._changed:
            if self.finding.unverified:
                return
            if self.limit_is_set:
                self.finding = Finding(refuses=True)
                return
            self.finding = replace(self.finding, unverified=why)
        advice = "set the provider's `context_length`, so that longer documents fail instead of being cut"
        logger.warning("%s: cannot verify that prompts are read whole: %s; %s", self.name, why, advice)

    def doubt(self) -> None:
        """Forget that the server refuses what is too long: something else answers in its place."""
        with self._changed:
            if self.finding.refuses:
                self.finding = Finding()

    def forget(self) -> None:
        """Forget how far prompts were proved: the server was gone, and may have come back with a smaller context."""
        with self._changed:
            self.finding = replace(self.finding, proven=0)

    def verify(self, case: Case, *, may_wait: Callable[[], bool] = lambda: True) -> Verified | None:
        """Return whether the prompt was read whole; None: another thread is proving it, and this one may not wait.

        ProofFailedError when a proof could not be made.
        """
        with self._changed:
            self._longest_bytes = max(self._longest_bytes, case.size_bytes)
        while True:
            finding = self.finding
            if not case.tokens and not finding.refuses:
                self.distrust(NO_COUNT)
            if not case.tokens:
                return self._accepted(case, notes=() if self.finding.refuses else (UNVERIFIED,))
            if finding.is_contradicted(case.tokens) and not finding.unverified:
                self.distrust(TWO_LIMITS)
                continue
            notes = (UNVERIFIED,) if finding.unverified else ()
            if self._is_unknown(case):
                if not self._turn(may_wait):
                    return None
                try:
                    self._look_once(case)
                finally:
                    self._end_turn()
                continue
            verdict = finding.verdict(case.tokens, size_bytes=case.size_bytes, max_tokens=case.max_tokens)
            if verdict == "halves":
                assert finding.cut is not None
                return self._halves(case, case.tokens, finding.cut, notes=notes)
            if verdict in ("whole", "unverified") and self._is_suspected(case, case.tokens):
                return self._suspected(case, case.tokens, notes=notes)
            if verdict != "prove":
                if (accepted := self._accept(case, finding, notes=notes)) is not None:
                    return accepted
                continue
            if not self._turn(may_wait):
                return None
            try:
                self._prove(case, case.tokens)
            finally:
                self._end_turn()

    def glance(self, case: Measured) -> Verified | None:
        """Return the verdict where no request is needed to know that the prompt was read whole; None: use `verify`."""
        with self._changed:
            self._longest_bytes = max(self._longest_bytes, case.size_bytes)
        finding = self.finding
        notes = (UNVERIFIED,) if finding.unverified else ()
        if not case.tokens:
            return self._accepted(case, notes=() if finding.refuses else notes) if finding.refuses or notes else None
        if self._is_unknown(case) or (finding.is_contradicted(case.tokens) and not finding.unverified):
            return None
        verdict = finding.verdict(case.tokens, size_bytes=case.size_bytes, max_tokens=case.max_tokens)
        if verdict not in ("whole", "unverified"):
            return None
        if self._is_suspected(case, case.tokens):
            self._suspects.add((case.tokens, case.size_bytes))
            return None
        return self._accept(case, finding, notes=notes)

    def _accept(self, case: Case | Measured, finding: Finding, *, notes: tuple[str, ...]) -> Verified | None:
        """Return that the prompt is accepted under this finding; None when another thread has found more meanwhile."""
        with self._changed:
            return self._accepted(case, notes) if self.finding is finding else None

    def _accepted(self, case: Case | Measured, notes: tuple[str, ...] = ()) -> Verified:
        with self._changed:
            self.accepted += 1
            self.limits.accept(case.document)
            if case.tokens:
                self._ratios.add(case.tokens, case.weight)
        return Verified(notes=notes)

    def _turn(self, may_wait: Callable[[], bool]) -> bool:
        """Return True once this thread may look again whether a proof is needed, as the only one that makes it."""
        with self._changed:
            while self._proving:
                if not may_wait():
                    return False
                self._changed.wait(LOOK_S)
            self._proving = True
            return True

    def _end_turn(self) -> None:
        with self._changed:
            self._proving = False
            self._changed.notify_all()

    def _prove(self, case: Case, tokens: int) -> None:
        """Prove by repetition, unless another thread has done so meanwhile."""
        if self.finding.verdict(tokens, size_bytes=case.size_bytes, max_tokens=case.max_tokens) != "prove":
            return
        try:
            found = self._found(case, tokens)
        except ProofFailedError:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                self.distrust(UNPROVABLE)
            raise
        self._failures = 0
        self.proofs += 1
        self._take(found)

    def _take(self, found: Finding) -> None:
        """Replace what is known by what was found, and report a limit."""
        with self._changed:
            is_reported = found.unverified == self.finding.unverified
            self.finding = found if is_reported else replace(found, unverified="")
            if found.cut is not None and self.accepted:
                self.limits.add(found.cut)
        if found.cut:
            told = "it cuts longer prompts without an error; such documents fail as prompt_truncated"
            logger.warning("%s: found a context of %s tokens: %s", self.name, found.cut.context_length, told)
        if not is_reported:
            self.distrust(found.unverified)

    def look(self, case: Case) -> None:
        """Find out what needs no document: that the server refuses, or leaves out of its counts what it has cached.

        Nothing is learnt when a request fails. `pipeline check` asks for it; a run does it with its first proof.
        """
        if self.finding != Finding() or self.limit_is_set or self.proofs:
            return
        with suppress(ProofFailedError):
            self._take(without_document(case))

    def _is_unknown(self, case: Case | Measured) -> bool:
        """Return whether the counts of this server may leave out what is cached: then a low one exempts no prompt."""
        if self._has_looked or self.proofs or self.limit_is_set or case.promised_context:
            return False
        return self.finding == Finding() and self._looks < MOST_FAILURES

    def _look_once(self, case: Case) -> None:
        """Look before the first prompt is accepted; where that fails, the first proof looks again."""
        if not self._is_unknown(case):
            return
        self._looks += 1
        with suppress(ProofFailedError):
            self._take(without_document(case))
            self._has_looked = True

    def _found(self, case: Case, tokens: int) -> Finding:
        if not self.proofs and not self._has_looked and (known := without_document(case)) != Finding():
            return known
        return by_repetition(
            case, tokens, longest_bytes=self._longest_bytes, proofs=self.proofs, proven=self.finding.proven
        )

    def _is_suspected(self, case: Case | Measured, tokens: int) -> bool:
        """Return whether a prompt that the proofs cover has a count as if another server had cut it."""
        if (tokens, case.size_bytes) in self._suspects:
            self._suspects.discard((tokens, case.size_bytes))
            return True
        if not self.proofs or self.finding.unverified not in ("", TWO_LIMITS) or case.chars < LEAST_SUSPECTED:
            return False
        with self._changed:
            return self._watch.suspects(tokens, case.size_bytes)

    def _suspected(self, case: Case, tokens: int, *, notes: tuple[str, ...]) -> Verified:
        """Return whether a suspected prompt was cut; if so, its count is what cuts leave from now on."""
        cut = Cut(tokens, tokens, case.max_tokens, tokens)
        try:
            found = self._halves(case, tokens, cut, notes=notes)
        except ProofFailedError:
            with self._changed:  # it is suspected again when its document comes back
                self._suspects.add((tokens, case.size_bytes))
            raise
        with self._changed:
            self._watch.settle(tokens, case.size_bytes, is_cut=found.cut)
            if found.cut:
                known = self.finding
                self._take(replace(known, cut=cut, unverified=TWO_LIMITS if known.cut or known.unverified else ""))
        return found

    def _halves(self, case: Case, tokens: int, cut: Cut, *, notes: tuple[str, ...] = ()) -> Verified:
        if len(case.text) < 2:
            return self._accepted(case, notes)

        def send(text: str, whole: bool) -> Probe:
            return case.send(text, 1, whole)

        proof = by_halves(case.text, send, tokens=tokens, places=case.places, cut=cut, renew=case.renew)
        if proof.differs:
            self.distrust(TWO_LIMITS)
        if proof.is_cut:
            return Verified(cut=True, needed_tokens=proof.needed_tokens)
        with self._changed:
            self.limits.proved.add(case.document)
            return self._accepted(case, notes)
