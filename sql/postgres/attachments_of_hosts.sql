-- attachments_of_hosts: reads the live attachments to a host itself, as cinder-backup makes while it reads a volume.
SELECT id, volume_id, instance_uuid, attached_host, attach_status
  FROM volume_attachment
 WHERE deleted = FALSE
   AND instance_uuid IS NULL
   AND attached_host IS NOT NULL;
