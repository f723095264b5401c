-- session_server: reads what the server is, from variables that every account may read. A variable that the server does not have returns
-- no row.
SHOW GLOBAL VARIABLES WHERE Variable_name IN (
    'version', 'version_comment', 'read_only', 'super_read_only', 'server_uuid', 'server_uid', 'hostname', 'port',
    'datadir', 'group_replication_group_name', 'wsrep_on', 'wsrep_provider');
