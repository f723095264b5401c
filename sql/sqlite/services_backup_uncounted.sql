-- services_backup_uncounted: the same for a table without report_count; every release of Cinder has that column.
SELECT host, updated_at, created_at, deleted
  FROM services
 WHERE "binary" = 'cinder-backup';
