-- services_backup_uncounted: the same where the table has no report_count, which every release of Cinder gives it.
SELECT host, CAST(updated_at AS CHAR) AS updated_at, CAST(created_at AS CHAR) AS created_at, deleted
  FROM services
 WHERE `binary` = 'cinder-backup';
