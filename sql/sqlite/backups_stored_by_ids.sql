-- backups_stored_by_ids: reads where the backups of a list of primary keys are stored, including deleted backups.
SELECT id, deleted, status, service, container, service_metadata, volume_id, project_id,
       deleted_at
  FROM backups
 WHERE id IN (SELECT value FROM json_each(?1));
