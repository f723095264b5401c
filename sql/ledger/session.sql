-- session: settings of a connection. A foreign key removes the result of a backup with it. In a write-ahead log NORMAL keeps every commit
-- when the process is killed; a power failure may lose the last commits, but never damages the file.
PRAGMA foreign_keys = ON;
PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -32768;
PRAGMA temp_store = FILE;
