-- The least privileges for `--rehost` on MySQL and MariaDB, beside those of repair.sql: to move a backup to another host. No INSERT, no
-- DELETE.
--
-- Replace the account and, if Cinder's database has another name, the schema.

GRANT UPDATE (host, availability_zone) ON `cinder`.`backups` TO 'cinder_repair'@'localhost';
