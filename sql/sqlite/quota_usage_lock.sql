-- quota_usage_lock: locks one live row of the quotas until the transaction ends, and reads it. Cinder locks it to reserve anything.
-- SQLite has no FOR UPDATE: BEGIN IMMEDIATE has locked the whole file.
SELECT id, project_id, resource, in_use, reserved
  FROM quota_usages
 WHERE id = ?1
   AND deleted = 0;
