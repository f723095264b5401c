-- backup_record: records when a backup was last known to be intact at each level, and that it was tried. NULL changes nothing.
UPDATE backups
   SET quick_at = coalesce(?2, quick_at), deep_at = coalesce(?3, deep_at), restore_at = coalesce(?4, restore_at),
       limited_at = ?5, limited_level = ?6, unanswered_at = ?7, bytes = coalesce(?8, bytes), claim = NULL
 WHERE number = ?1;
