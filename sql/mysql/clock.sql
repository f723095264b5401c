-- clock: reads the server's UTC clock, for the age of heartbeats.
SELECT CAST(UTC_TIMESTAMP(6) AS CHAR);
