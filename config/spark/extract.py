"""All chunks of a plan, as tasks of a Spark job: spark-submit config/spark/extract.py prod.yaml"""

import sys

from pyspark.sql import SparkSession

from pipeline.engines.spark import exit_code_of, run_plan

session = SparkSession.builder.appName("extract").getOrCreate()
results = run_plan(session, *sys.argv[1:2])
for result in results:
    if result.exit_code:
        sys.stderr.write(f"chunk {result.index}: exit code {result.exit_code}: {result.message}\n")
sys.stdout.write(f"{sum(result.counts.done for result in results):,} documents done by {len(results):,} chunks\n")
session.stop()
sys.exit(exit_code_of(results))
