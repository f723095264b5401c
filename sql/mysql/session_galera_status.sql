-- session_galera_status: reads the cluster of a Galera node and its size, whether the node is in the primary component, its state, and its
-- own id, which changes each time that it joins.
SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_state_uuid', 'wsrep_cluster_status', 'wsrep_cluster_size', 'wsrep_ready',
                                           'wsrep_local_state_comment', 'wsrep_gcomm_uuid');
