-- reservations_by_projects: counts the open reservations of backups and their gigabytes, by project, of a list of projects.
SELECT project_id, COUNT(*)
  FROM reservations
 WHERE project_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0
   AND resource IN ('backups', 'backup_gigabytes')
 GROUP BY project_id;
