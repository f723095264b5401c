-- The least privileges for apply, repair and undo, on PostgreSQL: what scan needs, and the right to change just the
-- columns that a repair changes. No INSERT, no DELETE. Run it in Cinder's database, as the tables' owner.
--
-- Replace the role. Before Liberty there is no num_dependent_backups: leave it out there. A member of pg_read_all_stats also sees
-- since when, and from where, a lock is held that a run cannot get; this is optional.

GRANT SELECT ON backups, volumes, snapshots, volume_attachment, services, quota_usages, alembic_version TO cinder_repair;

GRANT UPDATE (status, size, object_count, service_metadata, fail_reason, num_dependent_backups, updated_at) ON backups TO cinder_repair;
GRANT UPDATE (status, updated_at) ON volumes TO cinder_repair;
GRANT UPDATE (status, updated_at) ON snapshots TO cinder_repair;
