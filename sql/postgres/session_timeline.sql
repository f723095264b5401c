-- session_timeline: the timeline that the server writes; it changes when a standby takes over.
SELECT 'timeline ' || left(pg_walfile_name(pg_current_wal_lsn()), 8);
