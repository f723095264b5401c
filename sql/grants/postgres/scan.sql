-- The least privileges for scan, plan and every dry run on PostgreSQL. Run these statements in Cinder's database as the owner of the
-- tables.
--
-- Replace the role. Create it first, for example:
--     CREATE ROLE cinder_scan LOGIN PASSWORD '…';
-- alembic_version only names the release; before Wallaby, replace it with migrate_version. Before Kilo, remove volume_attachment.

GRANT SELECT ON backups, volumes, snapshots, volume_attachment, services, quota_usages, alembic_version TO cinder_scan;
