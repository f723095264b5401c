-- session_begin_read: begins a transaction that reads one state of the file. query_only is on at that point.
BEGIN DEFERRED;
