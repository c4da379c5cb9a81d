"""A Spark DataFrame with an extracted column: `mapInArrow` with the Extractor of the Python interface.

It writes no output of its own, so nothing resumes and no report is written: for archives use the chunks of a plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.api import Extractor
from pipeline.records import Result

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyspark.sql import DataFrame

COLUMNS = ("output", "reason", "message")
"""The columns that are added: the answer as JSON, or the reason and the message of a failure."""


def extract_frame(
    frame: DataFrame,
    agent: str = "extractor",
    *,
    text: str = "text",
    document_id: str | None = None,
    agents_dir: str | None = None,
    concurrency: int = 8,
) -> DataFrame:
    """Return the frame with the columns `output`, `reason` and `message`, all of them strings or null.

    `text`, `document_id`: names of columns; `concurrency`: requests in flight of each task. The server is that of the
    executors' configuration or environment (VLLM_BASE_URL, …). Spark computes a frame again when it loses a part
    of it, or when it is used twice: write it to a table before you use it.
    """
    from pyspark.sql.types import StringType, StructField, StructType

    added = [StructField(name, StringType()) for name in COLUMNS]
    rows = _Rows(agent, text, document_id, agents_dir, concurrency)
    return frame.mapInArrow(rows, StructType([*frame.schema.fields, *added]))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The function of a task: it adds the columns to each batch of rows."""

    agent: str
    text: str
    document_id: str | None
    agents_dir: str | None
    concurrency: int

    def __call__(self, batches: Iterator[RecordBatch]) -> Iterator[RecordBatch]:
        """Yield the batches with the added columns."""
        extractor = Extractor(self.agent, agents_dir=self.agents_dir)
        with extractor, ThreadPoolExecutor(self.concurrency) as pool:
            for batch in batches:
                yield self._extracted(batch, extractor, pool.map)

    def _extracted(
        self, batch: RecordBatch, extractor: Extractor, each: Callable[..., Iterator[tuple[str | None, ...]]]
    ) -> RecordBatch:
        import pyarrow

        texts = batch.column(self.text).to_pylist()
        ids = texts if self.document_id is None else batch.column(self.document_id).to_pylist()
        cells = list(each(lambda text, id: _cells(extractor, text, str(id)), texts, ids))
        columns = zip(*cells, strict=True) if cells else ((),) * len(COLUMNS)
        added = [pyarrow.array(list(column), pyarrow.string()) for column in columns]
        return pyarrow.RecordBatch.from_arrays([*batch.columns, *added], [*batch.schema.names, *COLUMNS])


def _cells(extractor: Extractor, text: Any, document_id: str) -> tuple[str | None, str | None, str | None]:
    """Return the added cells of a row."""
    if not isinstance(text, str):
        return None, "document_empty", "the text is null"
    outcome = extractor(text, document_id=document_id)
    if isinstance(outcome, Result):
        return json.dumps(outcome.output, ensure_ascii=False), None, None
    return None, outcome.reason, outcome.message
