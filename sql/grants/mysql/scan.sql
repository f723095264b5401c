-- The least privileges for scan, plan and every dry run on MySQL and MariaDB.
--
-- Replace the account and, if Cinder's database has another name, the schema. Create the account first, for example on MariaDB:
--     CREATE USER 'cinder_scan'@'localhost' IDENTIFIED VIA unix_socket;
-- and on MySQL:
--     CREATE USER 'cinder_scan'@'localhost' IDENTIFIED BY '…' REQUIRE SSL;
-- alembic_version only names the release; before Wallaby, replace it with migrate_version. Before Kilo, remove volume_attachment.

GRANT SELECT ON `cinder`.`backups` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`volumes` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`snapshots` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`volume_attachment` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`services` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`quota_usages` TO 'cinder_scan'@'localhost';
GRANT SELECT ON `cinder`.`alembic_version` TO 'cinder_scan'@'localhost';
