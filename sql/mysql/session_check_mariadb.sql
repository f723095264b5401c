-- session_check_mariadb: reads back what session_rows, session_names and session_state_mariadb set, because a proxy may have dropped it.
-- The last lines identify the server that answers and the session. The values are lines of one column, because the server describes each
-- column in each answer.
SELECT CONCAT_WS(CHAR(10 USING utf8mb4),
       @@session.time_zone,
       @@session.sql_mode,
       @@session.lc_messages,
       @@session.autocommit + 0,
       @@session.tx_isolation,
       @@session.innodb_lock_wait_timeout,
       @@session.lock_wait_timeout,
       @@session.max_statement_time,
       @@session.character_set_client,
       @@session.character_set_connection,
       @@session.character_set_results,
       @@session.completion_type,
       CAST(@@session.sql_select_limit AS char),
       CONCAT_WS(':', @@global.hostname, @@global.port, @@global.datadir),
       @cinder_backup_repair);
