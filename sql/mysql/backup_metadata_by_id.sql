-- backup_metadata_by_id: reads one row of a backup's metadata, whether or not it is deleted.
SELECT id, backup_id, deleted
  FROM backup_metadata
 WHERE id = ?;
