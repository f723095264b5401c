-- session_begin_read: begins a transaction that sees one moment and that the server holds read-only.
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
