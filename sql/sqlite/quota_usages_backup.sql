-- quota_usages_backup: reads the quota usage of all projects for backups and their gigabytes.
SELECT id, project_id, resource, in_use, reserved
  FROM quota_usages
 WHERE deleted = 0
   AND project_id IS NOT NULL
   AND resource IN ('backups', 'backup_gigabytes');
