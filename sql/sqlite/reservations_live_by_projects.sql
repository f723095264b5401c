-- reservations_live_by_projects: reads the live reservations of a list of projects for backups and their gigabytes.
SELECT id, project_id, usage_id, resource, delta, expire, deleted
  FROM reservations
 WHERE project_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0
   AND resource IN ('backups', 'backup_gigabytes');
