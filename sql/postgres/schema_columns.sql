-- schema_columns: reads which of the required tables and columns exist along the search path; messages
-- and backup_metadata only if this account may read them.
SELECT CAST(c.relname AS text), CAST(a.attname AS text)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
 WHERE c.oid IN (to_regclass('backups'), to_regclass('volumes'), to_regclass('snapshots'), to_regclass('volume_attachment'),
                 to_regclass('services'), to_regclass('quota_usages'), to_regclass('reservations'),
                 to_regclass('backup_metadata'), to_regclass('messages'), to_regclass('alembic_version'), to_regclass('migrate_version'))
   AND a.attnum > 0
   AND NOT a.attisdropped
   AND (c.relname NOT IN ('messages', 'backup_metadata') OR has_table_privilege(c.oid, 'SELECT'));
