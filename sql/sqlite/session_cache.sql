-- session_cache: keeps 16 MiB of the file in memory, so that pages with many rows are read once.
PRAGMA cache_size = -16384;
