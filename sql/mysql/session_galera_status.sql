-- session_galera_status: reads the cluster of a Galera node, whether the node is in the primary component, and its own id, which changes
-- each time that it joins.
SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_state_uuid', 'wsrep_cluster_status', 'wsrep_ready', 'wsrep_gcomm_uuid');
