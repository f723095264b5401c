-- uptime: returns no row, because a file has no server.
SELECT 'Uptime', NULL;
