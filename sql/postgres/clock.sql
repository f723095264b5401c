-- clock: reads the server's UTC clock, for the age of heartbeats.
SELECT to_char(timezone('utc', clock_timestamp()), 'YYYY-MM-DD HH24:MI:SS.US');
