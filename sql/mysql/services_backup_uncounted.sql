-- services_backup_uncounted: reads the last heartbeat of every cinder-backup service from a table without report_count, which every
-- release of Cinder has.
SELECT host, CAST(updated_at AS CHAR) AS updated_at, CAST(created_at AS CHAR) AS created_at, deleted,
       availability_zone, disabled
  FROM services
 WHERE `binary` = 'cinder-backup';
