"""A plan of the input in chunks: made once by `pipeline plan`, read by `pipeline run --chunk`."""
