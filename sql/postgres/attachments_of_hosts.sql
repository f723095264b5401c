-- attachments_of_hosts: live attachments that a host holds for itself, as cinder-backup does while it reads a volume.
SELECT id, volume_id, instance_uuid, attached_host, attach_status
  FROM volume_attachment
 WHERE deleted = FALSE
   AND instance_uuid IS NULL
   AND attached_host IS NOT NULL;
