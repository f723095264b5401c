-- The least privileges for `--fix-quotas` on MySQL and MariaDB, beside those of repair.sql: to read and end reservations, and to correct
-- the quotas. No INSERT, no DELETE.
--
-- Replace the account and, if Cinder's database has another name, the schema.

GRANT SELECT ON `cinder`.`reservations` TO 'cinder_repair'@'localhost';

GRANT UPDATE (in_use, reserved, updated_at) ON `cinder`.`quota_usages` TO 'cinder_repair'@'localhost';
GRANT UPDATE (deleted, deleted_at) ON `cinder`.`reservations` TO 'cinder_repair'@'localhost';
