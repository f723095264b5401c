-- reservations_live_by_projects: reads the live reservations of a list of projects for backups and their gigabytes.
SELECT id, project_id, usage_id, resource, delta,
       CASE WHEN expire >= '0001-01-01' AND isfinite(expire)
            THEN to_char(expire, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(expire AS text) END AS expire,
       deleted
  FROM reservations
 WHERE project_id = ANY(CAST($1 AS text[]))
   AND deleted = FALSE
   AND resource IN ('backups', 'backup_gigabytes');
