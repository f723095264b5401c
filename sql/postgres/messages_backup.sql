-- messages_backup: reads Cinder's messages to users about backups, in one pass over the table. Cinder keeps a message for 30 days by
-- default.
SELECT resource_uuid, CASE WHEN created_at >= '0001-01-01' AND isfinite(created_at)
            THEN to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(created_at AS text) END AS created_at, detail_id
  FROM messages
 WHERE deleted = FALSE
   AND resource_type = 'VOLUME_BACKUP'
   AND resource_uuid IS NOT NULL;
