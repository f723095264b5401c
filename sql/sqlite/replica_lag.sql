-- replica_lag: returns no row, because a file has no replica.
SELECT NULL WHERE 0;
