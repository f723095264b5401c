-- session_begin_write: begins a transaction and takes the write lock at once, so that a later UPDATE cannot fail for lack of it.
BEGIN IMMEDIATE;
