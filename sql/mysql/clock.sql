-- clock: the server's UTC clock.
SELECT CAST(UTC_TIMESTAMP(6) AS CHAR);
