-- reservation_update: ends one reservation as Cinder does, or restores it, if the row is as planned.
-- Parameters: whether it is deleted then, the id, whether it was deleted, then every other guarded column. Exactly one row must match.
UPDATE reservations
   SET deleted = (CAST($1 AS bigint) = 1),
       deleted_at = CASE WHEN CAST($1 AS bigint) = 1 THEN timezone('utc', clock_timestamp()) END
 WHERE id = CAST($2 AS bigint)
   AND deleted = (CAST($3 AS bigint) = 1)
   AND project_id IS NOT DISTINCT FROM CAST($4 AS text)
   AND usage_id IS NOT DISTINCT FROM CAST($5 AS bigint)
   AND resource IS NOT DISTINCT FROM CAST($6 AS text)
   AND delta IS NOT DISTINCT FROM CAST($7 AS bigint)
   AND expire IS NOT DISTINCT FROM CAST($8 AS timestamp);
