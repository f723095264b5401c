-- quota_usage_by_id: reads one live row of the quotas.
SELECT id, project_id, resource, in_use, reserved
  FROM quota_usages
 WHERE id = ?
   AND deleted = 0;
