-- The least privileges for `--fix-quotas` on PostgreSQL, beside those of repair.sql: to read and end reservations, and to correct the
-- quotas. No INSERT, no DELETE.
-- Run these statements in Cinder's database as the owner of the tables.
--
-- Replace the role.

GRANT SELECT ON reservations TO cinder_repair;

GRANT UPDATE (in_use, reserved, updated_at) ON quota_usages TO cinder_repair;
GRANT UPDATE (deleted, deleted_at) ON reservations TO cinder_repair;
