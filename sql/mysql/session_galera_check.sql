-- session_galera_check: reads back what session_galera_wait set. The last column identifies the node that answers.
SELECT @@session.wsrep_sync_wait,
       CONCAT_WS(' ', @@global.wsrep_node_name, @@global.wsrep_node_address);
