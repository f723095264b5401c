-- Refuse values that do not fit, and read literals exactly as written.
SET NAMES utf8mb4;
SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION';
SET SESSION time_zone = '+00:00';
SET SESSION innodb_lock_wait_timeout = 30;
-- 0 after the first UPDATE that did not match exactly one row; then nothing more is committed.
SET @cbr_ok = 1;
