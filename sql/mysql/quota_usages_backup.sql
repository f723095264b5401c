-- quota_usages_backup: reads the number of backups and their gigabytes that the quotas count, by project.
SELECT project_id, resource, in_use
  FROM quota_usages
 WHERE deleted = 0
   AND resource IN ('backups', 'backup_gigabytes');
