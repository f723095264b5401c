-- uptime: seconds since the server started.
SHOW GLOBAL STATUS LIKE 'Uptime';
