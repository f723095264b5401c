-- The least privileges for apply, repair and undo, on MySQL and MariaDB: what scan needs, and the right to change
-- just the columns that a repair changes. No INSERT, no DELETE.
--
-- Replace the account and, where Cinder's database is not called cinder, the schema. Before Liberty there is no
-- num_dependent_backups: leave it out there. With PROCESS (on MySQL also SELECT on performance_schema) a run that cannot
-- get a lock can say who holds it; this is optional.

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
