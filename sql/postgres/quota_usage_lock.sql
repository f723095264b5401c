-- quota_usage_lock: locks one live row of the quotas until the transaction ends, and reads it. Cinder locks it to reserve anything.
-- FOR UPDATE reads the newest committed row.
SELECT id, project_id, resource, in_use, reserved
  FROM quota_usages
 WHERE id = CAST($1 AS bigint)
   AND deleted = FALSE
   FOR UPDATE;
