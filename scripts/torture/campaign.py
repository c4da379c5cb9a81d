"""One campaign: runs that are killed, cut off, started twice or out of disk, and quiet runs at the end.

It must not judge an output itself: check.py does, after every run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from fake_llm import FakeLLM
from s3_faults import FaultProxy

from torture.check import Findings, Snapshot, check_end, check_run
from torture.corpus import Corpus
from torture.counts import CountedTrouble, RunCounts
from torture.server import STORE_FAULTS, RequestLedger, Trouble, store_fails
from torture.site import GRACE_S, Site, ended_in_startup, exit_after_signal, exit_code_of, short_of_files, workers_of
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
"""Seconds that a run may take to start its worker processes on a busy machine."""


class Campaign:
    """Runs on one output until the time is up, then quiet runs to the end; `say` reports the progress."""

    def __init__(
        self,
        site: Site,
        corpus: Corpus,
        *,
        server: FakeLLM,
        ledger: RequestLedger,
        rng: random.Random,
        say: Callable[[str], None],
    ) -> None:
        self.counts = RunCounts()
        self._site = site
        self._corpus = corpus
        self._server = server
        self._ledger = ledger
        self._rng = rng
        self._say = say
        self._streamed_at_end = rng.random() < 0.5
        self._is_first_start = True

    def run(self, seconds: float) -> RunCounts:
        """Run the campaign until all documents have ended; return its counts."""
        started = time.monotonic()
        files = len(self._corpus.files)
        actions = (
            [self._kill] * 6 + [self._cut] * 3 + [self._second, self._outage, self._few_files, self._short_of_files]
        )
        # A short campaign has each of these once, before the random choices.
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
            self._run_action(deck.pop())
        self._corpus.show(files)
        for _ in range(MAX_QUIET_RUNS):
            requests_before = self._ledger.total
            self._run_action(self._quiet)
            if self._ledger.total == requests_before:
                break
        else:
            self._wrong(f"{MAX_QUIET_RUNS} quiet runs, and documents are still sent")
        self._add(check_end(self._corpus, self._site, ledger=self._ledger))
        return self.counts

    def _run_action(self, action: Callable[[str], bool]) -> None:
        """Start one run, let the action happen to it, and check its output."""
        self.counts.runs += 1
        label = f"run-{self.counts.runs:04}"
        snapshot_before = Snapshot.of(self._site.outbox)
        results = snapshot_before.last_results()
        self._is_first_start = not (snapshot_before.results or snapshot_before.errors)
        self._ledger.finished = {
            name for name, line in results.items() if line["sha256"] == self._corpus.docs[name].sha256
        }
        self._ledger.answered_windows = frozenset(answered_windows(self._corpus, self._site.outbox))
        over = action(label)
        snapshot_after = Snapshot.of(self._site.outbox)
        outbox = self._site.outbox
        self._add(
            check_run(
                label, snapshot_before, snapshot_after, ledger=self._ledger, over=over, unwritten=outbox.unwritten
            )
        )
        outbox.free()  # no process of this campaign is alive, so the next run need not wait for the lease
        result_count = len(snapshot_after.last_results())
        document_count = sum(1 for _ in self._corpus.visible())
        wrong = sum(map(len, self.counts.findings.rows().values()))
        action_name = action.__name__.strip("_").replace("_", " ")
        self._say(
            f"{label} {action_name}: {result_count} results, {len(snapshot_after.errors)} errors of {document_count};"
            f" faults: {wrong}"
        )

    def _quiet(self, label: str) -> bool:
        """Start a quiet run. All of them stream or none does, as the servers' faults depend on it."""
        stream = f"{self._site.dialect}.stream={str(self._streamed_at_end).lower()}"
        self._expect(label, exit_code_of(self._site.start(label, "--set", stream)), {0})
        return True

    def _kill(self, label: str) -> bool:
        """Send a signal at a random moment, sometimes during an outage of the server."""
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
                    self._ledger.events[label] += 1
                    self.counts.happened["worker processes killed"] += 1
        return self._strike(label, signal.SIGKILL, after_s=self._rng.uniform(1.0, 4.0), process=started)

    def _cut(self, label: str) -> bool:
        with self._trouble(label, self._rng.randint(1, 2)) as happened:
            number = self._rng.choice(SIGNALS)
            after_s = self._rng.uniform(5.0, 12.0)
            return self._strike(label, number, after_s=after_s, happened=happened)

    def _second(self, label: str) -> bool:
        """Start a second run on the same output, which must give way and name the first."""
        first = self._site.start(label)
        rival = f"{label}-rival"
        time.sleep(self._rng.uniform(0.0, 2.5))
        code = exit_code_of(second := self._site.start(rival))
        if first.poll() is None or code == 3:
            self._expect(rival, code, {3})
            holder = f"pid {first.pid}"
            log = self._site.log(rival).read_text()
            # The second one may have been quicker; then the first gives way.
            if holder not in log and f"pid {second.pid}" not in self._site.log(label).read_text():
                self._wrong(f"{rival}: does not name the holder, expected {holder!r} in its log")
            self.counts.happened["second runs refused"] += code == 3
        return self._strike(
            label, signal.SIGKILL, after_s=self._rng.uniform(0.0, 2.0), process=first, more=frozenset({3})
        )

    def _full_disk(self, label: str) -> bool:
        """Limit the size of files, so that the limit is reached in the middle of a line of results."""
        assert self._site.outbox.folder is not None
        path = self._site.outbox.folder / "results.jsonl"
        room = self._rng.randint(300, 20_000)
        limit = (path.stat().st_size if path.exists() else 0) + room
        code = exit_code_of(self._site.start(label, limit_bytes=limit))
        self._expect(label, code, {0, 3})
        self.counts.happened["disk full"] += code == 3
        return code == 0

    def _outage(self, label: str) -> bool:
        """Stop the server for longer than the run waits: exit 3, and all completed records are kept."""
        process = self._site.start(label, "--set", "runner.max_outage_s=1", "--set", "runner.startup_wait_s=1")
        time.sleep(self._rng.uniform(0.0, 3.0))
        self._ledger.events[label] += 1
        self._server.down()
        try:
            code = exit_code_of(process, 40.0)
        finally:
            self._server.up()
        self._expect(label, code, {0, 3})
        self.counts.happened["outages given up"] += code == 3
        self.counts.happened["server cuts"] += 1
        return code == 0

    def _few_files(self, label: str) -> bool:
        """Limit the number of open files for the whole run."""
        self._ledger.events[label] += 1  # at times no connection can be opened, as in an outage of the server
        process = self._site.start(label, open_files=self._rng.randint(48, 110))
        self.counts.happened["few open files"] += 1
        number = self._rng.choice(SIGNALS)
        after_s = self._rng.uniform(3.0, 9.0)
        return self._strike(label, number, after_s=after_s, process=process, more=frozenset({3}))

    def _short_of_files(self, label: str) -> bool:
        """Let no file be opened for a while, in the middle of the run."""
        self._ledger.events[label] += 1
        process = self._site.start(label)
        time.sleep(self._rng.uniform(0.7, 4.0))
        spare = self._rng.randint(-8, 2)
        lasts_s = self._rng.uniform(0.2, 2.0)
        self.counts.happened["short of open files"] += short_of_files(process, spare=spare, lasts_s=lasts_s)
        number = self._rng.choice(SIGNALS)
        after_s = self._rng.uniform(2.0, 8.0)
        return self._strike(label, number, after_s=after_s, process=process, more=frozenset({3}))

    def _store_gone(self, label: str) -> bool:
        """Let the store fail for longer than the run waits: exit 3, and no document fails because of it."""
        process = self._site.start(label, "--set", "runner.max_outage_s=1", "--set", "runner.startup_wait_s=1")
        time.sleep(self._rng.uniform(0.5, 3.0))
        with store_fails(self._rng.choice(self._proxies), self._rng.choice(list(STORE_FAULTS.values()))):
            code = exit_code_of(process, 60.0)
        self._expect(label, code, {0, 3} | self._refused())
        self.counts.happened["stores given up"] += code == 3
        return code == 0

    def _takeover(self, label: str) -> bool:
        """Kill a run, and start another one that waits for its lease and takes it over."""
        first = self._site.start(label)
        exit_after_signal(first, signal.SIGKILL, after_s=self._rng.uniform(1.0, 4.0))
        self.counts.kills["SIGKILL"] += 1
        heir = self._site.start(f"{label}-rival", "--set", "runner.lock_wait_s=60")
        self.counts.happened["leases taken over"] += 1
        return self._strike(label, self._rng.choice(SIGNALS), after_s=self._rng.uniform(22.0, 30.0), process=heir)

    @property
    def _proxies(self) -> list[FaultProxy]:
        """The proxies in front of this campaign's stores."""
        return [box.proxy for box in (self._site.inbox, self._site.outbox) if box.proxy is not None]

    def _refused(self) -> set[int]:
        """Return the exit codes allowed when a store refuses a first start, or the output cannot be read."""
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
        """Return whether the run ended by itself, before the signal; `happened`: the trouble during the run."""
        started = process or self._site.start(label)
        code, seconds = exit_after_signal(started, number, after_s=after_s)
        name = signal.Signals(number).name
        # A key that is refused at the start needs a person.
        refused = {2} if happened and happened.get("keys refused") else set[int]()
        if happened and any(happened.get(name) for name in STORE_FAULTS):
            refused |= {3} | self._refused()
        self._expect(label, code, {0} | CODES[signal.Signals(number)] | more | refused)
        if number != signal.SIGKILL and seconds > GRACE_S + 5.0:
            self._wrong(f"{label}: took {seconds:.1f} s from {name} to its end, expected {GRACE_S:g} s of grace")
        self.counts.kills[name] += seconds > 0
        return seconds == 0 and code == 0

    def _trouble(self, label: str, times: int) -> CountedTrouble:
        trouble = Trouble(self._server, self._ledger, run=label, rng=self._rng, times=times, proxies=self._proxies)
        return CountedTrouble(trouble, self.counts)

    def _change_one(self) -> None:
        if self._rng.random() < 0.4 and self._corpus.change(self._rng) is not None:
            self.counts.happened["documents changed"] += 1

    def _expect(self, label: str, code: int | None, allowed: set[int]) -> None:
        if code not in allowed:
            log = self._site.log(label).read_text(errors="replace")
            if 130 in allowed and ended_in_startup(log):
                return
            ending = "hung" if code is None else f"ended with {code}"
            self._wrong(f"{label}: {ending}, expected {sorted(allowed)}; its log ends: {log[-600:]}")

    def _wrong(self, message: str) -> None:
        self._add(Findings(other=[message]))

    def _add(self, more: Findings) -> None:
        """Add findings, and report them at once: a long campaign is watched while it runs."""
        for total, (name, sentences) in zip(self.counts.findings.rows().values(), more.rows().items(), strict=True):
            total += sentences
            for sentence in sentences:
                self._say(f"WRONG ({name}) {sentence}")
