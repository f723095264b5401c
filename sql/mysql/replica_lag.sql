-- replica_lag: reads the state of a replica; no row on a server that is none.
SHOW REPLICA STATUS;
