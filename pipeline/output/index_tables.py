"""The SQL of the index: two tables of latest lines, and two views that say which documents are done and failed.

`results` and `errors` hold one row for each id: its line of the highest run. Within a run the line written last wins
(LATER_WINS; `excluded` is SQL's name for the row being inserted). An id can be in both tables, as a document may fail
in one run and succeed in another, so two views compare the run numbers:

- `failed` (the errors that remain): the id has no result, or its result is of an earlier run than its error. `stale`
  is 1 when there is such an earlier result and the document's bytes have changed since; `accepted` is 1 when a person
  has accepted this failure, of these bytes, fingerprint and reason.
- `done`: the id has no error, or its error is not of a later run than its result. In one run the result wins: a
  document that first failed and was then retried in the same run is done.

So each id in the index is in exactly one of the views. Texts that many rows share (fingerprint, variant, run_id) are
stored as numbers. This module must not open a database: index.py does.
"""

from __future__ import annotations

COLUMNS = "id, run, sha256, fingerprint, variant, version, reason, runs, run_id, decided_by"
_TABLE = """CREATE TABLE {} (id TEXT PRIMARY KEY, run INTEGER, sha256 TEXT, fingerprint INTEGER, variant INTEGER,
    version TEXT, reason TEXT, runs INTEGER, run_id INTEGER, decided_by TEXT, question INTEGER) WITHOUT ROWID"""
ROW = "(?,?,?,?,?,?,?,?,?,?,?)"
LATER_WINS = """ON CONFLICT (id) DO UPDATE SET (run, sha256, fingerprint,
    variant, version, reason, runs, run_id, decided_by, question) = (excluded.run, excluded.sha256,
    excluded.fingerprint, excluded.variant, excluded.version, excluded.reason, excluded.runs, excluded.run_id,
    excluded.decided_by, excluded.question)
    WHERE excluded.run >= run"""
SCHEMA = (
    # the file does not outlive the process, so no write has to be durable
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA cache_size=-65536",  # 64 MiB while records are inserted in random order; see Index.slim
    _TABLE.format("results"),
    _TABLE.format("errors"),
    "CREATE TABLE met (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE accepted (id TEXT PRIMARY KEY, sha256 TEXT, fingerprint INTEGER, reason TEXT) WITHOUT ROWID",
    """CREATE VIEW failed AS SELECT e.*, r.id IS NOT NULL AND r.sha256 IS NOT e.sha256 AS stale,
       a.id IS NOT NULL AS accepted FROM errors e LEFT JOIN results r ON r.id = e.id LEFT JOIN accepted a
       ON a.id = e.id AND a.sha256 IS e.sha256 AND a.fingerprint = e.fingerprint AND a.reason = e.reason
       WHERE r.run IS NULL OR r.run < e.run""",
    """CREATE VIEW done AS SELECT r.* FROM results r LEFT JOIN errors e ON e.id = r.id
       WHERE e.run IS NULL OR e.run <= r.run""",
    "BEGIN",
)
RESULT = "SELECT id, run, sha256, fingerprint, version, run_id FROM results WHERE id = ?"
TOGETHER = 64
"""Ids of one query: each takes half of the time of a query of its own."""
_THESE = f"IN ({', '.join('?' * TOGETHER)})"
RESULTS_OF = f"SELECT id, run, sha256, fingerprint, version, run_id FROM results WHERE id {_THESE}"
LATEST_OF = f"""SELECT 0, {COLUMNS}, 0 FROM done WHERE id {_THESE}
    UNION ALL SELECT 1, {COLUMNS}, accepted FROM failed WHERE id {_THESE}"""
LATEST = f"""SELECT 0, {COLUMNS}, 0 FROM done WHERE id = ?
    UNION ALL SELECT 1, {COLUMNS}, accepted FROM failed WHERE id = ?"""
