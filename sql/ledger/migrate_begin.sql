-- migrate_begin: begins a migration, which no other connection may see half-done.
BEGIN EXCLUSIVE;
