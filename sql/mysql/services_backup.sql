-- services_backup: the heartbeat of every cinder-backup and how often it has beaten, removed ones too.
SELECT host, CAST(updated_at AS CHAR) AS updated_at, CAST(created_at AS CHAR) AS created_at, deleted, report_count
  FROM services
 WHERE `binary` = 'cinder-backup';
