-- session_cache: keeps 16 MiB of the file in memory, so that pages which many rows share are read once.
PRAGMA cache_size = -16384;
