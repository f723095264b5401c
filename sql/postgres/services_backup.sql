-- services_backup: the heartbeat of every cinder-backup, removed ones too.
SELECT host, to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') AS updated_at, to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') AS created_at, CASE WHEN deleted THEN 1 ELSE 0 END AS deleted
  FROM services
 WHERE "binary" = 'cinder-backup';
