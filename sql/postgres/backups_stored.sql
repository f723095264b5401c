-- backups_stored: reads where every backup is stored, including deleted backups, in one pass over the table.
SELECT id, deleted, status, service, container, service_metadata, volume_id, project_id,
       CASE WHEN deleted_at >= '0001-01-01' AND isfinite(deleted_at)
            THEN to_char(deleted_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(deleted_at AS text) END AS deleted_at
  FROM backups
 WHERE service IS NOT NULL;
