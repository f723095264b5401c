-- services_backup: the last heartbeat of every cinder-backup and how many it has sent, removed services included.
SELECT host, CAST(updated_at AS CHAR) AS updated_at, CAST(created_at AS CHAR) AS created_at, deleted, report_count
  FROM services
 WHERE `binary` = 'cinder-backup';
