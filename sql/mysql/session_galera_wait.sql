-- session_galera_wait: sets whether reads and updates on a Galera node wait until it has applied what the cluster committed.
-- Parameter: the sum of 1 (reads and the start of a transaction) and 2 (UPDATE); 0 for neither.
SET SESSION wsrep_sync_wait = ?;
