"""The report of a run and of a whole output: numbers, text, and one HTML page.

It reads outputs and calls no model; `run` and `cli` may import it.
"""

from pipeline.report.headlines import headline as headline
from pipeline.report.headlines import reconciles as reconciles
from pipeline.report.run_summary import RunSummary as RunSummary
from pipeline.report.stats import RunStats as RunStats
from pipeline.report.summary import build_report as build_report
from pipeline.report.summary import read_summaries as read_summaries
from pipeline.report.summary import report_files as report_files
from pipeline.report.summary import write_newest as write_newest
from pipeline.report.summary import write_report as write_report
from pipeline.report.text import summary_text as summary_text
