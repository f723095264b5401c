-- The least privileges for `--rehost` on PostgreSQL, beside those of repair.sql: to move a backup to another host. No INSERT, no DELETE.
-- Run this statement in Cinder's database as the owner of the tables.
--
-- Replace the role.

GRANT UPDATE (host, availability_zone) ON backups TO cinder_repair;
