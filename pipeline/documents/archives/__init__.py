"""Archives and compressed files as streams: zip, tar, WARC, gzip, zstd and others, member by member."""
