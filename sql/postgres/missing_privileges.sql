-- missing_privileges: reads, for each table, the columns that a repair sets and this account may not set, with the table and the account
-- as in a GRANT.
-- Parameters: 1 if backups are to become deleted, otherwise 0; 1 if quotas are to be corrected, otherwise 0;
-- 1 if backups are to get another host, otherwise 0.
SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum), CAST(CAST(c.oid AS regclass) AS text), quote_ident(current_user)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
 WHERE (c.oid = to_regclass('backups')
        AND a.attname IN ('status', 'size', 'object_count', 'service_metadata', 'fail_reason', 'num_dependent_backups', 'updated_at')
        OR c.oid IN (to_regclass('volumes'), to_regclass('snapshots')) AND a.attname IN ('status', 'updated_at')
        OR CAST($1 AS bigint) = 1
           AND (c.oid IN (to_regclass('backups'), to_regclass('backup_metadata')) AND a.attname IN ('deleted', 'deleted_at')
                OR c.oid = to_regclass('quota_usages') AND a.attname IN ('in_use', 'reserved', 'updated_at'))
        OR CAST($2 AS bigint) = 1
           AND (c.oid = to_regclass('quota_usages') AND a.attname IN ('in_use', 'reserved', 'updated_at')
                OR c.oid = to_regclass('reservations') AND a.attname IN ('deleted', 'deleted_at'))
        OR CAST($3 AS bigint) = 1 AND c.oid = to_regclass('backups') AND a.attname IN ('host', 'availability_zone'))
   AND NOT a.attisdropped
   AND NOT has_column_privilege(c.oid, a.attnum, 'UPDATE')
 GROUP BY c.oid, c.relname
 ORDER BY c.relname;
