-- begin_temporary: begins a transaction that writes to temporary tables only, and so locks nothing that others need.
BEGIN DEFERRED;
