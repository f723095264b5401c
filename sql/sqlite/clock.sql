-- clock: the UTC clock that heartbeats are compared with; for a file that is this host's.
SELECT strftime('%Y-%m-%d %H:%M:%f', 'now');
