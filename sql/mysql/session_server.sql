-- session_server: what the server is, as far as every account may know. A variable that it does not have gives no row.
SHOW GLOBAL VARIABLES WHERE Variable_name IN (
    'version', 'version_comment', 'read_only', 'super_read_only', 'server_uuid', 'server_uid', 'hostname', 'port',
    'datadir', 'group_replication_group_name', 'wsrep_on', 'wsrep_provider');
