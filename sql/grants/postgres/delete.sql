-- The least privileges for `--to deleted` on PostgreSQL, beside those of repair.sql: to read the open reservations, to mark a
-- backup and its metadata as deleted, and to correct the quota. No INSERT, no DELETE.
-- Run these statements in Cinder's database as the owner of the tables.
--
-- Replace the role. Before Pike, remove backup_metadata.

GRANT SELECT ON backup_metadata, reservations TO cinder_repair;

GRANT UPDATE (deleted, deleted_at) ON backups TO cinder_repair;
GRANT UPDATE (deleted, deleted_at) ON backup_metadata TO cinder_repair;
GRANT UPDATE (in_use, reserved, updated_at) ON quota_usages TO cinder_repair;
