-- schema_columns: reads which of the required tables and columns exist and are visible to this account.
SELECT table_name, column_name
  FROM information_schema.columns
 WHERE table_schema = DATABASE()
   AND table_name IN ('backups', 'volumes', 'snapshots', 'volume_attachment', 'services', 'quota_usages', 'reservations',
                  'backup_metadata', 'messages', 'alembic_version', 'migrate_version');
