-- durability: reads the settings by which the server may lose a commit that it has acknowledged. sync_binlog counts only with a binary log.
SELECT 'innodb_flush_log_at_trx_commit', CAST(@@GLOBAL.innodb_flush_log_at_trx_commit AS CHAR)
UNION ALL
SELECT 'sync_binlog', CAST(IF(@@GLOBAL.log_bin, @@GLOBAL.sync_binlog, 1) AS CHAR);
