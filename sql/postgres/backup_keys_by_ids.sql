-- backup_keys_by_ids: reads the ids of the encryption keys of a list of backups (Queens and later).
SELECT id, encryption_key_id
  FROM backups
 WHERE id = ANY(CAST($1 AS text[]))
   AND encryption_key_id IS NOT NULL
   AND deleted = FALSE;
