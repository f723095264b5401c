-- quota_usage_update: changes what a project's quota counts, if the row is as it was read under lock.
-- Parameters: the new numbers, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE quota_usages
   SET in_use = CAST($1 AS bigint),
       reserved = CAST($2 AS bigint),
       updated_at = timezone('utc', clock_timestamp())
 WHERE id = CAST($3 AS bigint)
   AND deleted = FALSE
   AND project_id IS NOT DISTINCT FROM CAST($4 AS text)
   AND resource IS NOT DISTINCT FROM CAST($5 AS text)
   AND in_use IS NOT DISTINCT FROM CAST($6 AS bigint)
   AND reserved IS NOT DISTINCT FROM CAST($7 AS bigint);
