-- services_backup: reads the last heartbeat of every cinder-backup service and the number of its heartbeats, removed services included.
SELECT host, updated_at, created_at, deleted, availability_zone, disabled, report_count
  FROM services
 WHERE "binary" = 'cinder-backup';
