-- session_process: reads which process serves the connection: the one that has the settings of session_set.
SELECT pg_backend_pid();
