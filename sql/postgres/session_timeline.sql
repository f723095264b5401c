-- session_timeline: the timeline that the server writes, which is another one as soon as a standby has taken over.
SELECT 'timeline ' || left(pg_walfile_name(pg_current_wal_lsn()), 8);
