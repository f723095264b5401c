-- reservations_by_projects: counts the open reservations of backups and their gigabytes, by project, of a list of projects.
SELECT project_id, COUNT(*)
  FROM reservations
 WHERE project_id = ANY(CAST($1 AS text[]))
   AND deleted = FALSE
   AND resource IN ('backups', 'backup_gigabytes')
 GROUP BY project_id;
