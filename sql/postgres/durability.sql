-- durability: reads the settings by which the server may lose a commit that it has acknowledged, as they are for this database and account.
SELECT CAST(name AS text), CAST(setting AS text)
  FROM pg_catalog.pg_settings
 WHERE name IN ('fsync', 'synchronous_commit')
 ORDER BY name;
