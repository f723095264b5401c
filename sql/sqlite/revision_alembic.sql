-- revision_alembic: the revision of the schema (Wallaby and later).
SELECT version_num
  FROM alembic_version;
