-- quota_usage_update: changes what a project's quota counts, if the row is as it was read under lock.
-- Parameters: the new numbers, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE quota_usages
   SET in_use = ?1,
       reserved = ?2,
       updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id = ?3
   AND deleted = 0
   AND project_id IS ?4
   AND resource IS ?5
   AND in_use IS ?6
   AND reserved IS ?7;
