-- user_version: the version of the schema; 0 in a new file.
PRAGMA user_version;
