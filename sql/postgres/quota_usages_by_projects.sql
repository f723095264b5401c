-- quota_usages_by_projects: reads the quota usage of a list of projects for backups and their gigabytes.
SELECT id, project_id, resource, in_use, reserved
  FROM quota_usages
 WHERE project_id = ANY(CAST($1 AS text[]))
   AND deleted = FALSE
   AND resource IN ('backups', 'backup_gigabytes');
