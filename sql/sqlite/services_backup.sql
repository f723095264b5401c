-- services_backup: the last heartbeat of every cinder-backup and how many it has sent, removed services included.
SELECT host, updated_at, created_at, deleted, report_count
  FROM services
 WHERE "binary" = 'cinder-backup';
