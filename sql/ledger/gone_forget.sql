-- gone_forget: removes backups that were deleted before a time. Until then a database that was restored from a copy finds them again.
DELETE FROM backups WHERE gone_at < ?1;
