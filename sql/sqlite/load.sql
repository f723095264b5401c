-- load: returns no number, because a file has no server.
SELECT 'Threads_running', NULL;
