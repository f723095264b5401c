-- services_backup_uncounted: the same where the table has no report_count, which every release of Cinder gives it.
SELECT host, updated_at, created_at, deleted
  FROM services
 WHERE "binary" = 'cinder-backup';
