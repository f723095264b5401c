-- services_backup_uncounted: reads the last heartbeat of every cinder-backup service from a table without report_count, which every
-- release of Cinder has.
SELECT host, updated_at, created_at, deleted, availability_zone, disabled
  FROM services
 WHERE "binary" = 'cinder-backup';
