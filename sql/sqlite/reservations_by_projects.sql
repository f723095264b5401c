-- reservations_by_projects: reads how many reservations for backups and their gigabytes are live and how many exist, with the greatest
-- id, for each project of a list. Cinder makes a new row for each operation, and marks it as deleted when the operation ends.
SELECT project_id, COUNT(CASE WHEN deleted = 0 THEN 1 END), COUNT(*), MAX(id)
  FROM reservations
 WHERE project_id IN (SELECT value FROM json_each(?1))
   AND resource IN ('backups', 'backup_gigabytes')
 GROUP BY project_id;
