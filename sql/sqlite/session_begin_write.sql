-- session_begin_write: begins a transaction and takes the write lock at once, so that it cannot fail half-way for want of it.
BEGIN IMMEDIATE;
