-- session_state_mariadb: puts a session on MariaDB into the known state.
-- Parameters: seconds to wait for a row lock, seconds to wait for a table's metadata lock, seconds for a statement (0: no limit). Messages
-- are in English, because the number of matched rows is read from one. From MariaDB 10.3, a transaction whose COMMIT is delayed on the way
-- is rolled back after two minutes, so that the COMMIT cannot take effect after that. The variable marks this session: it is lost
-- together with the rest of the state.
SET @cinder_backup_repair = COALESCE(@cinder_backup_repair, UUID()),
    SESSION
    time_zone = '+00:00',
    sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',
    lc_messages = 'en_US',
    autocommit = 1,
    completion_type = 'NO_CHAIN',
    tx_isolation = 'REPEATABLE-READ',
    innodb_lock_wait_timeout = ?,
    lock_wait_timeout = ?,
    max_statement_time = ?
    /*M!100300 , idle_write_transaction_timeout = 120 */;
