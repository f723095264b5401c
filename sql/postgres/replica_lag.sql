-- replica_lag: reads by how many seconds a standby is behind, NULL while it does not receive; no row on a server that is none.
SELECT CASE
           WHEN NOT EXISTS (SELECT 1 FROM pg_stat_wal_receiver) THEN NULL
           WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
           ELSE CAST(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS bigint)
       END
 WHERE pg_is_in_recovery();
