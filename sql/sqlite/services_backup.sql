-- services_backup: the heartbeat of every cinder-backup and how often it has beaten, removed ones too.
SELECT host, updated_at, created_at, deleted, report_count
  FROM services
 WHERE "binary" = 'cinder-backup';
