-- quota_usages_backup: reads what the quotas of all projects count of backups and their gigabytes.
SELECT id, project_id, resource, in_use, reserved
  FROM quota_usages
 WHERE deleted = 0
   AND project_id IS NOT NULL
   AND resource IN ('backups', 'backup_gigabytes');
