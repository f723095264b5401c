-- stored: what a backup's files are made from.
SELECT volume_id, parent_id, container, service_metadata, created_at, size
  FROM backups
 WHERE id = ?;
