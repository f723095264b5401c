-- session_begin_read: begins a transaction that reads one snapshot and in which the server refuses writes.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
