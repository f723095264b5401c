-- The least privileges for scan, plan and every dry run, on MySQL and MariaDB.
--
-- Replace the account and, where Cinder's database is not called cinder, the schema. Make the account first, on MariaDB for
-- example with
--     CREATE USER 'cinder_scan'@'localhost' IDENTIFIED VIA unix_socket;
-- and on MySQL with
--     CREATE USER 'cinder_scan'@'localhost' IDENTIFIED BY '…' REQUIRE SSL;
-- alembic_version (before Wallaby: migrate_version) only names the release; leave out the one that does not exist.
-- volume_attachment came with Kilo: leave it out on an older database.

GRANT SELECT ON `cinder`.`backups` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`volumes` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`snapshots` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`volume_attachment` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`services` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`quota_usages` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`alembic_version` TO 'cinder_scan'@'localhost';
