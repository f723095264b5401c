-- revision_migrate: reads the revision of the schema (before Wallaby).
SELECT version
  FROM migrate_version;
