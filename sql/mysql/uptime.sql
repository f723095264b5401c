-- uptime: reads the seconds since the server started.
SHOW GLOBAL STATUS LIKE 'Uptime';
