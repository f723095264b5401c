-- session_galera_check: reads back what session_galera_wait set.
SELECT @@session.wsrep_sync_wait;
