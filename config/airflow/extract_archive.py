"""An Airflow DAG: list the input once, then run its chunks as mapped tasks, and write one report. For Airflow 3.

Copy it into the DAG folder and set CONFIG. The workers need the package, the config file and the agent.
"""

import subprocess
from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

CONFIG = "/opt/extraction/prod.yaml"
CHUNKS = 400  # of the first plan; at most core.max_map_length, which is 1024
AT_A_TIME = 8


@dag(schedule=None, catchup=False, max_active_runs=1, tags=["extraction"])
def extract_archive():
    """Plan, chunks, report. Run it again to resume, and for new documents."""

    @task(retries=3, retry_delay=timedelta(minutes=5))
    def plan() -> list[int]:
        """Return the numbers of all chunks; those that are finished cost a second or two each."""
        command = ["pipeline", "plan", "--count", "--config", CONFIG, "--chunks", str(CHUNKS)]
        return list(range(int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)))

    @task(retries=3, retry_delay=timedelta(minutes=5), max_active_tis_per_dagrun=AT_A_TIME)
    def chunk(index: int) -> None:
        """Run one chunk; when this process is killed, its requests in flight finish."""
        from pipeline.engines import run_chunk

        result = run_chunk(CONFIG, None, index)
        if result.exit_code in (1, 2):  # too many failures, or the configuration: they would come again
            raise AirflowFailException(f"exit code {result.exit_code}: {result.message}")
        if result.exit_code:
            raise RuntimeError(f"exit code {result.exit_code}, the next try resumes: {result.message}")

    @task(trigger_rule="all_done")
    def report() -> None:
        """Write the report of all chunks."""
        subprocess.run(["pipeline", "report", "--config", CONFIG], check=True)

    chunk.expand(index=plan()) >> report()


extract_archive()
