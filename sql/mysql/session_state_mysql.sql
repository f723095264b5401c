-- session_state_mysql: puts a session on MySQL (5.7.20 and later) into the known state.
-- Parameters: seconds to wait for a row lock, seconds to wait for a table's metadata lock, milliseconds for a SELECT (0: no limit; MySQL
-- has no such limit for an UPDATE). Messages are in English, because the number of matched rows is read from one.
SET SESSION
    time_zone = '+00:00',
    sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',
    lc_messages = 'en_US',
    autocommit = 1,
    completion_type = 'NO_CHAIN',
    transaction_isolation = 'REPEATABLE-READ',
    innodb_lock_wait_timeout = ?,
    lock_wait_timeout = ?,
    max_execution_time = ?;
