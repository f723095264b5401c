-- reservations_by_projects: counts the reservations of backups and their gigabytes, by project, of a list of projects: the live ones
-- and all, with the newest id. Cinder makes a new row for each operation, and marks it as deleted when the operation ends.
SELECT project_id, COUNT(CASE WHEN deleted = FALSE THEN 1 END), COUNT(*), MAX(id)
  FROM reservations
 WHERE project_id = ANY(CAST($1 AS text[]))
   AND resource IN ('backups', 'backup_gigabytes')
 GROUP BY project_id;
