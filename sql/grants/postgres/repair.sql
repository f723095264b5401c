-- The least privileges for apply, repair and undo on PostgreSQL: those for scan, and UPDATE on only the columns that a repair
-- changes. No INSERT, no DELETE. Run these statements in Cinder's database as the owner of the tables.
--
-- Replace the role. Before Liberty, remove num_dependent_backups. Optional: for a member of pg_read_all_stats, a run that waits for a
-- lock can report since when and from where it is held.

GRANT SELECT ON backups, volumes, snapshots, volume_attachment, services, quota_usages, alembic_version TO cinder_repair;

GRANT UPDATE (status, size, object_count, service_metadata, fail_reason, num_dependent_backups, updated_at) ON backups TO cinder_repair;
GRANT UPDATE (status, updated_at) ON volumes TO cinder_repair;
GRANT UPDATE (status, updated_at) ON snapshots TO cinder_repair;
