-- clock: reads the clock of this host in UTC, for the age of heartbeats.
SELECT strftime('%Y-%m-%d %H:%M:%f', 'now');
