-- uptime: seconds since the server started; a file has none.
SELECT 'Uptime', NULL;
