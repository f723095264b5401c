-- revision_alembic: reads the revision of the schema (Wallaby and later).
SELECT version_num
  FROM alembic_version;
