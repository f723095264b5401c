-- backups_stored: reads where every backup is stored, including deleted backups, in one pass over the table.
SELECT id, deleted, status, service, container, service_metadata, volume_id, project_id,
       deleted_at
  FROM backups
 WHERE service IS NOT NULL;
