-- messages_backup: reads Cinder's messages to users about backups, in one pass over the table. Cinder keeps a message for 30 days by
-- default.
SELECT resource_uuid, CAST(created_at AS CHAR) AS created_at, detail_id
  FROM messages
 WHERE deleted = 0
   AND resource_type = 'VOLUME_BACKUP'
   AND resource_uuid IS NOT NULL;
