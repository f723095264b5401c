-- session_begin_read: begins a transaction that sees one state of the file (query_only is on by then).
BEGIN DEFERRED;
