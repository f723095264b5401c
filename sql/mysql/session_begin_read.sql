-- session_begin_read: begins a transaction that reads one snapshot and in which the server refuses writes.
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
