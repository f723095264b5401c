-- user_metadata_by_backups: reads the texts that users have set on a list of backups. The order makes two scans show the same ones.
SELECT backup_id, key, value
  FROM backup_metadata
 WHERE backup_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0
 ORDER BY id;
