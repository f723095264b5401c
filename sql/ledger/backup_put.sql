-- backup_put: adds a backup, or updates its row. The chain of a new one is 0 until chains_link or chains_alone finds it.
INSERT INTO backups (id, parent_id, chain, status, project, backend, created_at, bytes)
VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (id) DO UPDATE
   SET parent_id = excluded.parent_id, status = excluded.status, project = excluded.project, backend = excluded.backend,
       created_at = excluded.created_at, gone_at = NULL,
       bytes = CASE WHEN coalesce(quick_at, deep_at) IS NULL THEN excluded.bytes ELSE bytes END;
