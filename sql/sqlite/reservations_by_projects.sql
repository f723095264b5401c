-- reservations_by_projects: counts the reservations of backups and their gigabytes, by project, of a list of projects: the live ones
-- and all, with the newest id. Cinder makes a new row for each operation, and marks it as deleted when the operation ends.
SELECT project_id, COUNT(CASE WHEN deleted = 0 THEN 1 END), COUNT(*), MAX(id)
  FROM reservations
 WHERE project_id IN (SELECT value FROM json_each(?1))
   AND resource IN ('backups', 'backup_gigabytes')
 GROUP BY project_id;
