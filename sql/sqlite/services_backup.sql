-- services_backup: the heartbeat of every cinder-backup, removed ones too.
SELECT host, updated_at, created_at, deleted
  FROM services
 WHERE "binary" = 'cinder-backup';
