-- state: reads every row that a repair may change, with the columns that it may change. updated_at is separate, because every write
-- sets it.
SELECT 'backups' AS "table", id,
       printf('%d %s %s %s %s %s %s', deleted, quote(status), quote(host), quote(size), quote(object_count),
              quote(num_dependent_backups), quote(fail_reason)) AS content,
       updated_at
  FROM backups
 UNION ALL
SELECT 'volumes', id, printf('%d %s %s', deleted, quote(status), quote(previous_status)), updated_at
  FROM volumes
 UNION ALL
SELECT 'snapshots', id, printf('%d %s', deleted, quote(status)), updated_at
  FROM snapshots;
