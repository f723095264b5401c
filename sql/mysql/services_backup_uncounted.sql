-- services_backup_uncounted: the same for a table without report_count; every release of Cinder has that column.
SELECT host, CAST(updated_at AS CHAR) AS updated_at, CAST(created_at AS CHAR) AS created_at, deleted
  FROM services
 WHERE `binary` = 'cinder-backup';
