-- live_gone: marks the backups that are no longer live. They leave the coverage at once.
UPDATE backups SET gone_at = ?1 WHERE gone_at IS NULL AND number NOT IN (SELECT number FROM live);
