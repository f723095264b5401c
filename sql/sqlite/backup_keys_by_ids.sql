-- backup_keys_by_ids: reads the ids of the encryption keys of a list of backups (Queens and later).
SELECT id, encryption_key_id
  FROM backups
 WHERE id IN (SELECT value FROM json_each(?1))
   AND encryption_key_id IS NOT NULL
   AND +deleted = 0;
