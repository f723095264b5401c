-- quota_usage_update: changes what a project's quota counts, if the row is as it was read under lock.
-- Parameters: the new numbers, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE quota_usages
   SET in_use = ?,
       reserved = ?,
       updated_at = UTC_TIMESTAMP()
 WHERE id = ?
   AND deleted = 0
   AND project_id <=> ?
   AND resource <=> ?
   AND in_use <=> ?
   AND reserved <=> ?;
