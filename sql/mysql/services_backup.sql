-- services_backup: reads the last heartbeat of every cinder-backup service and the number of its heartbeats, removed services included.
SELECT host, CAST(updated_at AS CHAR) AS updated_at, CAST(created_at AS CHAR) AS created_at, deleted,
       availability_zone, disabled, report_count
  FROM services
 WHERE `binary` = 'cinder-backup';
