-- The least privileges for `--to deleted` on MySQL and MariaDB, beside those of repair.sql: to read the open reservations, to mark a
-- backup and its metadata as deleted, and to correct the quota. No INSERT, no DELETE.
--
-- Replace the account and, if Cinder's database has another name, the schema. Before Pike, remove backup_metadata.

GRANT SELECT ON `cinder`.`backup_metadata` TO 'cinder_repair'@'localhost';
GRANT SELECT ON `cinder`.`reservations` TO 'cinder_repair'@'localhost';

GRANT UPDATE (deleted, deleted_at) ON `cinder`.`backups` TO 'cinder_repair'@'localhost';
GRANT UPDATE (deleted, deleted_at) ON `cinder`.`backup_metadata` TO 'cinder_repair'@'localhost';
GRANT UPDATE (in_use, reserved, updated_at) ON `cinder`.`quota_usages` TO 'cinder_repair'@'localhost';
