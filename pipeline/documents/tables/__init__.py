"""Files with a document for each line, row or element: JSON, JSON Lines, CSV and Parquet."""
