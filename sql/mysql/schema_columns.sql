-- schema_columns: which of the tables and columns that matter there are, as far as this account may see them.
SELECT table_name, column_name
  FROM information_schema.columns
 WHERE table_schema = DATABASE()
   AND table_name IN ('backups', 'volumes', 'snapshots', 'volume_attachment', 'services', 'quota_usages', 'alembic_version', 'migrate_version');
