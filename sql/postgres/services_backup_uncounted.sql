-- services_backup_uncounted: reads the last heartbeat of every cinder-backup service from a table without report_count, which every
-- release of Cinder has.
SELECT host,
       CASE WHEN updated_at >= '0001-01-01' AND isfinite(updated_at)
            THEN to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(updated_at AS text) END AS updated_at,
       CASE WHEN created_at >= '0001-01-01' AND isfinite(created_at)
            THEN to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(created_at AS text) END AS created_at,
       CASE WHEN deleted THEN 1 ELSE 0 END AS deleted,
       availability_zone,
       CASE WHEN disabled THEN 1 ELSE 0 END AS disabled
  FROM services
 WHERE "binary" = 'cinder-backup';
