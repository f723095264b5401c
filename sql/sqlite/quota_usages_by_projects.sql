-- quota_usages_by_projects: reads the quota usage of a list of projects for backups and their gigabytes.
SELECT id, project_id, resource, in_use, reserved
  FROM quota_usages
 WHERE project_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0
   AND resource IN ('backups', 'backup_gigabytes');
