-- schema_columns: reads which of the required tables and columns exist.
SELECT m.name, c.name
  FROM sqlite_master AS m, pragma_table_info(m.name) AS c
 WHERE m.type = 'table'
   AND m.name IN ('backups', 'volumes', 'snapshots', 'volume_attachment', 'services', 'quota_usages', 'reservations',
                  'backup_metadata', 'messages', 'alembic_version', 'migrate_version');
