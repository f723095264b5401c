-- backups_available: reads where every available backup was stored, and by which host, in one pass over the table.
SELECT id, host, service, container, project_id, CAST(created_at AS CHAR) AS created_at
  FROM backups
 WHERE deleted = 0
   AND status = 'available';
