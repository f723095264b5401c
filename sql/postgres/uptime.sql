-- uptime: reads the seconds since the server started.
SELECT 'Uptime', CAST(extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()) AS bigint);
