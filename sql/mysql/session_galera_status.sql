-- session_galera_status: the cluster that a Galera node belongs to, and whether it is in the part that may write; and its own id,
-- which is a new one each time that it joins.
SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_state_uuid', 'wsrep_cluster_status', 'wsrep_ready', 'wsrep_gcomm_uuid');
