-- session_check_mariadb: reads back what session_rows, session_names and session_state_mariadb set, because a proxy may have dropped it.
-- The last column identifies the server that answers.
SELECT @@session.time_zone,
       @@session.sql_mode,
       @@session.lc_messages,
       @@session.autocommit,
       @@session.tx_isolation,
       @@session.innodb_lock_wait_timeout,
       @@session.lock_wait_timeout,
       @@session.max_statement_time,
       @@session.character_set_client,
       @@session.character_set_connection,
       @@session.character_set_results,
       @@session.completion_type,
       CAST(@@session.sql_select_limit AS char),
       CONCAT_WS(':', @@global.hostname, @@global.port, @@global.datadir);
