-- session_server: what the server is, as far as every account may know.
SELECT current_setting('server_version'),
       CAST(current_user AS text),
       CAST(current_database() AS text),
       pg_is_in_recovery(),
       current_setting('default_transaction_read_only'),
       has_function_privilege('pg_control_system()', 'EXECUTE'),
       CAST(oid AS text)
  FROM pg_database
 WHERE datname = current_database();
