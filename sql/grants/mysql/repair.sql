-- The least privileges for apply, repair and undo on MySQL and MariaDB: those for scan, and UPDATE on only the columns that a repair
-- changes. No INSERT, no DELETE.
--
-- Replace the account and, if Cinder's database has another name, the schema. Before Liberty, remove num_dependent_backups.
-- Optional: with PROCESS (on MySQL also SELECT on performance_schema), a run that waits for a lock can report who holds it.

GRANT SELECT ON `cinder`.`backups` TO 'cinder_repair'@'localhost';
GRANT SELECT ON `cinder`.`volumes` TO 'cinder_repair'@'localhost';
GRANT SELECT ON `cinder`.`snapshots` TO 'cinder_repair'@'localhost';
GRANT SELECT ON `cinder`.`volume_attachment` TO 'cinder_repair'@'localhost';
GRANT SELECT ON `cinder`.`services` TO 'cinder_repair'@'localhost';
GRANT SELECT ON `cinder`.`quota_usages` TO 'cinder_repair'@'localhost';
GRANT SELECT ON `cinder`.`alembic_version` TO 'cinder_repair'@'localhost';

GRANT UPDATE (status, size, object_count, service_metadata, fail_reason, num_dependent_backups, updated_at)
   ON `cinder`.`backups` TO 'cinder_repair'@'localhost';
GRANT UPDATE (status, updated_at) ON `cinder`.`volumes` TO 'cinder_repair'@'localhost';
GRANT UPDATE (status, updated_at) ON `cinder`.`snapshots` TO 'cinder_repair'@'localhost';
