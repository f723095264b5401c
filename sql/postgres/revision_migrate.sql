-- revision_migrate: the revision of the schema (before Wallaby).
SELECT version
  FROM migrate_version;
