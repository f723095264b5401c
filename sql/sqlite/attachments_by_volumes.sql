-- attachments_by_volumes: reads the live attachments of a list of volumes.
SELECT id, volume_id, instance_uuid, attached_host, attach_status
  FROM volume_attachment
 WHERE volume_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
