-- attachments_by_volume: reads the live attachments of one volume.
SELECT id, volume_id, instance_uuid, attached_host, attach_status
  FROM volume_attachment
 WHERE volume_id = ?
   AND deleted = 0;
