-- session_begin_read: begins a transaction that sees one moment and that the server holds read-only.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
