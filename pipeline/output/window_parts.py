"""The windows of an output in an object store: parts `windows/000012-00003-of-00016-000000.jsonl`, without manifests.

They are written by the writer of the run's other parts, read whole at the start, and replaced when lines are removed.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

from pipeline.output.lines import bounded_lines, parse
from pipeline.output.part_reader import PartReader
from pipeline.output.part_writer import PartWriter
from pipeline.output.parts import Part
from pipeline.output.store_errors import DeleteRefusedError
from pipeline.output.window_lines import Keep

_log = logging.getLogger(__name__)


class StoredWindows:
    """The WindowFiles (window_lines.py) of a prefix in a bucket.

    `reader`: reader of the parts of windows. `writer`: returns the run's writer once it exists. `send`: writes its
    closed parts, in the main thread. `delete`: deletes parts, under the lease.
    """

    def __init__(
        self,
        reader: PartReader,
        *,
        writer: Callable[[], PartWriter],
        send: Callable[[], None],
        delete: Callable[[list[Part]], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._send = send
        self._delete = delete

    @property
    def is_full(self) -> bool:
        """False: closed parts of windows count as the records' (RemoteBackend.is_full)."""
        return False

    def lines(self) -> Iterator[bytes]:
        """Read part by part, one in memory at a time."""
        self._reader.refresh()
        for part in self._parts():
            yield from self._lines(part)

    def read(self) -> Iterator[bytes]:
        """Read part by part, as `lines` does."""
        return self.lines()

    def append(self, line: bytes) -> None:
        """Add the line to the open part."""
        self._writer().add("windows", line, None)

    def sync_due(self, now: float) -> None:
        """Do nothing: the writer closes its parts when records are due."""

    def sync(self) -> None:
        """Write the remaining lines, in this thread."""
        self._writer().close_all()
        self._send()

    def keep(self, keep: Keep) -> None:
        """Write the lines to keep into new parts, then delete the old ones."""
        self._reader.refresh()
        old = [part for part in self._parts() if self._reader.is_own(part)]
        if all(keep(record) for part in old for line in self._lines(part) if (record := parse(line)) is not None):
            return
        for part in old:
            for line in self._lines(part):
                record = parse(line)
                if record is not None and keep(record):
                    self.append(line)
            if self._writer().is_full:
                self._send()
        self.sync()
        try:
            self._delete(old)
        except DeleteRefusedError as error:
            _log.warning("Cannot delete old windows; allow DELETE for this prefix (docs/storage.md): %s", error)

    def close(self) -> None:
        """Do nothing: the writer of the records closes all parts."""

    def _parts(self) -> list[Part]:
        return [part for part in self._reader.parts("windows") if not self._reader.is_siblings(part)]

    def _lines(self, part: Part) -> Iterator[bytes]:
        data = self._reader.content(part)
        for line, _ in bounded_lines(io.BytesIO(data or b""), part.key):
            yield line if line.endswith(b"\n") else line + b"\n"
