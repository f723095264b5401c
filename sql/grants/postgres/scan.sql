-- The least privileges for scan, plan and every dry run, on PostgreSQL. Run it in Cinder's database, as the tables' owner.
--
-- Replace the role, after making it for example with
--     CREATE ROLE cinder_scan LOGIN PASSWORD '…';
-- alembic_version (before Wallaby: migrate_version) only names the release; leave out the one that does not exist.
-- volume_attachment came with Kilo: leave it out on an older database.

GRANT SELECT ON backups, volumes, snapshots, volume_attachment, services, quota_usages, alembic_version TO cinder_scan;
