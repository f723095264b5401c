-- quota_usages_backup: what the quotas think of backups and of their gigabytes, by project.
SELECT project_id, resource, in_use
  FROM quota_usages
 WHERE deleted = FALSE
   AND resource IN ('backups', 'backup_gigabytes');
