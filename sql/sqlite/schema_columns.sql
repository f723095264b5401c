-- schema_columns: which of the tables and columns that matter there are.
SELECT m.name, c.name
  FROM sqlite_master AS m, pragma_table_info(m.name) AS c
 WHERE m.type = 'table'
   AND m.name IN ('backups', 'volumes', 'snapshots', 'volume_attachment', 'services', 'quota_usages', 'alembic_version', 'migrate_version');
