-- backup_metadata_by_backups: reads the live metadata of a list of backups.
SELECT id, backup_id, deleted
  FROM backup_metadata
 WHERE backup_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
