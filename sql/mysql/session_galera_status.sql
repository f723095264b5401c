-- session_galera_status: the cluster that a Galera node belongs to, whether it is in the primary component, and its own id,
-- which is new each time that it joins.
SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_state_uuid', 'wsrep_cluster_status', 'wsrep_ready', 'wsrep_gcomm_uuid');
