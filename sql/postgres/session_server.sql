-- session_server: reads what the server is, from facts that every account may read. It asks whether PUBLIC may call pg_control_system(),
-- not whether this account may, so that all accounts find the same identity. The last two columns are whether this account may run
-- session_timeline, and the process that serves the connection.
SELECT current_setting('server_version'),
       CAST(current_user AS text),
       CAST(current_database() AS text),
       pg_is_in_recovery(),
       current_setting('default_transaction_read_only'),
       has_function_privilege('public', 'pg_control_system()', 'EXECUTE'),
       CAST(oid AS text),
       CAST(current_schema() AS text),
       has_function_privilege('pg_walfile_name(pg_lsn)', 'EXECUTE')
         AND has_function_privilege('pg_current_wal_lsn()', 'EXECUTE'),
       pg_backend_pid()
  FROM pg_database
 WHERE datname = current_database();
