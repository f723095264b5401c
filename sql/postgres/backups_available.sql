-- backups_available: reads where every available backup was stored, and by which host, in one pass over the table.
SELECT id, host, service, container, project_id,
       CASE WHEN created_at >= '0001-01-01' AND isfinite(created_at)
            THEN to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(created_at AS text) END AS created_at
  FROM backups
 WHERE NOT deleted
   AND status = 'available';
