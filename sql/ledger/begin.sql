-- begin: begins a transaction that writes.
BEGIN IMMEDIATE;
