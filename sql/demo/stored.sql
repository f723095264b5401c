-- stored: reads the values from which the files of a backup are made.
SELECT volume_id, parent_id, container, service_metadata, created_at, size
  FROM backups
 WHERE id = ?;
