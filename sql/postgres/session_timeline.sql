-- session_timeline: reads the timeline that the server writes, which changes when a standby takes over.
SELECT 'timeline ' || left(pg_walfile_name(pg_current_wal_lsn()), 8);
