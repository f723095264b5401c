-- missing_privileges: reads, for each table, the columns that a repair sets and this account may not set, with the table and the account
-- as in a GRANT.
-- Parameters: 1 if backups are to become deleted, otherwise 0; 1 if quotas are to be corrected, otherwise 0;
-- 1 if backups are to get another host, otherwise 0.
-- The column `privileges` has the privileges in force: on the server, the schema, the table and the column, and by active roles.
SELECT GROUP_CONCAT(column_name ORDER BY ordinal_position SEPARATOR ', '),
       CONCAT('`', table_schema, '`.`', table_name, '`'),
       CONCAT(QUOTE(LEFT(CURRENT_USER(), CHAR_LENGTH(CURRENT_USER()) - CHAR_LENGTH(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)) - 1)), '@',
              QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)))
  FROM information_schema.columns
 WHERE table_schema = DATABASE()
   AND (table_name = 'backups'
        AND column_name IN ('status', 'size', 'object_count', 'service_metadata', 'fail_reason', 'num_dependent_backups', 'updated_at')
        OR table_name IN ('volumes', 'snapshots') AND column_name IN ('status', 'updated_at')
        OR ? = 1
           AND (table_name IN ('backups', 'backup_metadata') AND column_name IN ('deleted', 'deleted_at')
                OR table_name = 'quota_usages' AND column_name IN ('in_use', 'reserved', 'updated_at'))
        OR ? = 1
           AND (table_name = 'quota_usages' AND column_name IN ('in_use', 'reserved', 'updated_at')
                OR table_name = 'reservations' AND column_name IN ('deleted', 'deleted_at'))
        OR ? = 1 AND table_name = 'backups' AND column_name IN ('host', 'availability_zone'))
   AND FIND_IN_SET('update', privileges) = 0
 GROUP BY table_schema, table_name
 ORDER BY table_name;
