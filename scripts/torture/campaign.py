"""One campaign: runs that are killed, cut off, doubled or out of disk, one after another, and at the end in peace.

It must not judge an output itself: torture_check does, after every run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from fake_llm import FakeLLM
from s3_faults import FaultProxy

from torture.check import Findings, Snapshot, check_end, check_run
from torture.corpus import Corpus
from torture.server import STORE_FAULTS, Book, Trouble, store_fails
from torture.site import GRACE_S, Site, ended, ended_in_startup, short_of_files, struck, workers_of
from torture.windows import answered_windows

SIGNALS = (signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT)
CODES = {
    signal.SIGKILL: {-signal.SIGKILL},
    # A signal that comes before the program has set its handlers ends the interpreter as any other program.
    signal.SIGTERM: {143, -signal.SIGTERM},
    signal.SIGINT: {130, -signal.SIGINT},
}
MAX_QUIET_RUNS = 6
WORKERS_AFTER_S = 15.0
"""How long a run may take to start its worker processes, on a busy machine."""


@dataclass(slots=True)
class RunCounts:
    """What happened in a campaign."""

    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)


class Campaign:
    """Runs over one output until the time is up, then to the end; `say` is told what goes on."""

    def __init__(
        self, site: Site, corpus: Corpus, *, server: FakeLLM, book: Book, rng: random.Random, say: Callable[[str], None]
    ) -> None:
        self.tally = RunCounts()
        self._site, self._corpus, self._server, self._book, self._rng = site, corpus, server, book, rng
        self._say = say
        self._streamed_at_end = rng.random() < 0.5
        self._is_first_start = True

    def run(self, seconds: float) -> RunCounts:
        """Return what happened, when all documents have come to their end."""
        started, files = time.monotonic(), len(self._corpus.files)
        actions = (
            [self._kill] * 6 + [self._cut] * 3 + [self._second, self._outage, self._few_files, self._short_of_files]
        )
        # A short run sees each of these once, before chance decides.
        deck: list[Callable[[str], bool]] = [self._cut, self._second]
        more = [self._full_disk] if self._site.outbox.folder is not None else [self._takeover]
        more += [self._store_gone] if self._proxies else []
        more += [self._lose_workers] * 2 if self._site.processes > 1 else []
        actions += more
        deck += more
        deck += [self._short_of_files, self._kill]
        while (spent := time.monotonic() - started) < seconds:
            self._corpus.show(int(files * (0.1 + spent / seconds)))
            if not deck:
                deck = self._rng.sample(actions, len(actions))
            self._change_one()
            self._one(deck.pop())
        self._corpus.show(files)
        for _ in range(MAX_QUIET_RUNS):
            before = self._book.total
            self._one(self._quiet)
            if self._book.total == before:
                break
        else:
            self._wrong(f"{MAX_QUIET_RUNS} runs in peace, and documents are still asked")
        self._found(check_end(self._corpus, self._site, book=self._book))
        return self.tally

    def _one(self, action: Callable[[str], bool]) -> None:
        """One run with what happens to it, held against what it may do."""
        self.tally.runs += 1
        label = f"run-{self.tally.runs:04}"
        before = Snapshot.of(self._site.outbox)
        results = before.last_results()
        self._is_first_start = not (before.results or before.errors)
        self._book.finished = {
            name for name, line in results.items() if line["sha256"] == self._corpus.docs[name].sha256
        }
        self._book.answered = frozenset(answered_windows(self._corpus, self._site.outbox))
        over = action(label)
        after = Snapshot.of(self._site.outbox)
        outbox = self._site.outbox
        self._found(check_run(label, before, after, book=self._book, over=over, unwritten=outbox.unwritten))
        outbox.free()  # no process of this campaign is alive, and the next run need not find that out
        done, shown = len(after.last_results()), sum(1 for _ in self._corpus.visible())
        wrong = sum(map(len, self.tally.findings.rows().values()))
        told = action.__name__.strip("_").replace("_", " ")
        self._say(f"{label} {told}: {done} results, {len(after.errors)} errors of {shown}; wrong so far: {wrong}")

    def _quiet(self, label: str) -> bool:
        """A run in peace. Whether answers are streamed stays the same: servers' trouble depends on it."""
        stream = f"{self._site.dialect}.stream={str(self._streamed_at_end).lower()}"
        self._expect(label, ended(self._site.start(label, "--set", stream)), {0})
        return True

    def _kill(self, label: str) -> bool:
        """A signal at a random instant, at times with the server gone as well."""
        number = self._rng.choice(SIGNALS)
        after_s = self._rng.choice(
            (self._rng.uniform(0.0, 1.0), self._rng.uniform(1.0, 6.0), self._rng.uniform(1.0, 6.0))
        )
        with self._trouble(label, self._rng.choice((0, 0, 1))) as happened:
            return self._strike(label, number, after_s=after_s, happened=happened)

    def _lose_workers(self, label: str) -> bool:
        """Kill worker processes with SIGKILL, one after the other, and finally the run itself."""
        started = self._site.start(label)
        for _ in range(self._rng.randint(2, 4)):
            until = time.monotonic() + WORKERS_AFTER_S
            while started.poll() is None and not workers_of(started.pid) and time.monotonic() < until:
                time.sleep(0.1)
            time.sleep(self._rng.uniform(0.2, 2.0))
            for pid in workers_of(started.pid)[: self._rng.randint(1, 2)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self._book.events[label] += 1
                    self.tally.happened["worker processes killed"] += 1
        return self._strike(label, signal.SIGKILL, after_s=self._rng.uniform(1.0, 4.0), process=started)

    def _cut(self, label: str) -> bool:
        with self._trouble(label, self._rng.randint(1, 2)) as happened:
            number, after_s = self._rng.choice(SIGNALS), self._rng.uniform(5.0, 12.0)
            return self._strike(label, number, after_s=after_s, happened=happened)

    def _second(self, label: str) -> bool:
        """A second run on the same output, which must give way and name the first."""
        first = self._site.start(label)
        rival = f"{label}-rival"
        time.sleep(self._rng.uniform(0.0, 2.5))
        code = ended(second := self._site.start(rival))
        if first.poll() is None or code == 3:
            self._expect(rival, code, {3})
            holder, said = f"pid {first.pid}", self._site.log(rival).read_text()
            # The second one may have been quicker, and then it is the first that gives way.
            if holder not in said and f"pid {second.pid}" not in self._site.log(label).read_text():
                self._wrong(f"{rival}: does not name the holder, expected {holder!r} in its log")
            self.tally.happened["second runs refused"] += code == 3
        return self._strike(
            label, signal.SIGKILL, after_s=self._rng.uniform(0.0, 2.0), process=first, more=frozenset({3})
        )

    def _full_disk(self, label: str) -> bool:
        """No file may grow beyond a size that is reached in the middle of a line of results."""
        assert self._site.outbox.folder is not None
        path = self._site.outbox.folder / "results.jsonl"
        room = self._rng.randint(300, 20_000)
        limit = (path.stat().st_size if path.exists() else 0) + room
        code = ended(self._site.start(label, limit_bytes=limit))
        self._expect(label, code, {0, 3})
        self.tally.happened["disk full"] += code == 3
        return code == 0

    def _outage(self, label: str) -> bool:
        """A server that stays away for longer than the run waits: exit 3, and everything finished is kept."""
        process = self._site.start(label, "--set", "runner.max_outage_s=1", "--set", "runner.startup_wait_s=1")
        time.sleep(self._rng.uniform(0.0, 3.0))
        self._book.events[label] += 1
        self._server.down()
        try:
            code = ended(process, 40.0)
        finally:
            self._server.up()
        self._expect(label, code, {0, 3})
        self.tally.happened["outages given up"] += code == 3
        self.tally.happened["server cuts"] += 1
        return code == 0

    def _few_files(self, label: str) -> bool:
        """Few open files from the start to the end."""
        self._book.events[label] += 1  # no connection can be opened at times, as when the server is gone
        process = self._site.start(label, open_files=self._rng.randint(48, 110))
        self.tally.happened["few open files"] += 1
        number, after_s = self._rng.choice(SIGNALS), self._rng.uniform(3.0, 9.0)
        return self._strike(label, number, after_s=after_s, process=process, more=frozenset({3}))

    def _short_of_files(self, label: str) -> bool:
        """No file can be opened for a while, in the middle of the run."""
        self._book.events[label] += 1
        process = self._site.start(label)
        time.sleep(self._rng.uniform(0.7, 4.0))
        spare, lasts_s = self._rng.randint(-8, 2), self._rng.uniform(0.2, 2.0)
        self.tally.happened["short of open files"] += short_of_files(process, spare=spare, lasts_s=lasts_s)
        number, after_s = self._rng.choice(SIGNALS), self._rng.uniform(2.0, 8.0)
        return self._strike(label, number, after_s=after_s, process=process, more=frozenset({3}))

    def _store_gone(self, label: str) -> bool:
        """A store that fails for longer than the run waits: exit 3, and no document fails for it."""
        process = self._site.start(label, "--set", "runner.max_outage_s=1", "--set", "runner.startup_wait_s=1")
        time.sleep(self._rng.uniform(0.5, 3.0))
        with store_fails(self._rng.choice(self._proxies), self._rng.choice(list(STORE_FAULTS.values()))):
            code = ended(process, 60.0)
        self._expect(label, code, {0, 3} | self._refused())
        self.tally.happened["stores given up"] += code == 3
        return code == 0

    def _takeover(self, label: str) -> bool:
        """A run that is killed, and another one that takes over its lease, however long that lasts."""
        first = self._site.start(label)
        struck(first, signal.SIGKILL, after_s=self._rng.uniform(1.0, 4.0))
        self.tally.kills["SIGKILL"] += 1
        heir = self._site.start(f"{label}-rival", "--set", "runner.lock_wait_s=60")
        self.tally.happened["leases taken over"] += 1
        return self._strike(label, self._rng.choice(SIGNALS), after_s=self._rng.uniform(22.0, 30.0), process=heir)

    @property
    def _proxies(self) -> list[FaultProxy]:
        """Where the stores of this campaign can be made to fail."""
        return [each.proxy for each in (self._site.inbox, self._site.outbox) if each.proxy is not None]

    def _refused(self) -> set[int]:
        """The code for a store that refuses a first start, or an output that cannot even be looked at."""
        return {2} if self._is_first_start or self._site.outbox.proxy is not None else set()

    def _strike(
        self,
        label: str,
        number: int,
        *,
        after_s: float,
        process: subprocess.Popen[bytes] | None = None,
        more: frozenset[int] = frozenset(),
        happened: Mapping[str, int] | None = None,
    ) -> bool:
        """Return whether the run ended by itself, before the signal; `happened`: the trouble that it had."""
        started = process or self._site.start(label)
        code, seconds = struck(started, number, after_s=after_s)
        name = signal.Signals(number).name
        # A key that is refused at the start is for a person to change.
        refused = {2} if happened and happened.get("keys refused") else set[int]()
        if happened and any(happened.get(name) for name in STORE_FAULTS):
            refused |= {3} | self._refused()
        self._expect(label, code, {0} | CODES[signal.Signals(number)] | more | refused)
        if number != signal.SIGKILL and seconds > GRACE_S + 5.0:
            self._wrong(f"{label}: took {seconds:.1f} s from {name} to its end, expected {GRACE_S:g} s of grace")
        self.tally.kills[name] += seconds > 0
        return seconds == 0 and code == 0

    def _trouble(self, label: str, times: int) -> _Counted:
        trouble = Trouble(self._server, self._book, run=label, rng=self._rng, times=times, proxies=self._proxies)
        return _Counted(trouble, self.tally)

    def _change_one(self) -> None:
        if self._rng.random() < 0.4 and self._corpus.change(self._rng) is not None:
            self.tally.happened["documents changed"] += 1

    def _expect(self, label: str, code: int | None, allowed: set[int]) -> None:
        if code not in allowed:
            said = self._site.log(label).read_text(errors="replace")
            if 130 in allowed and ended_in_startup(said):
                return
            told = "hung" if code is None else f"ended with {code}"
            self._wrong(f"{label}: {told}, expected {sorted(allowed)}; its log ends: {said[-600:]}")

    def _wrong(self, message: str) -> None:
        self._found(Findings(other=[message]))

    def _found(self, more: Findings) -> None:
        """Report what is wrong at once: a long run is looked at while it goes on."""
        for mine, (name, theirs) in zip(self.tally.findings.rows().values(), more.rows().items(), strict=True):
            mine += theirs
            for sentence in theirs:
                self._say(f"WRONG ({name}) {sentence}")


class _Counted:
    """Trouble, counted in the tally when it is over."""

    def __init__(self, trouble: Trouble, tally: RunCounts) -> None:
        self._trouble, self._tally = trouble, tally

    def __enter__(self) -> Counter[str]:
        return self._trouble.__enter__().happened

    def __exit__(self, *_: object) -> None:
        self._trouble.__exit__()
        self._tally.happened += self._trouble.happened
