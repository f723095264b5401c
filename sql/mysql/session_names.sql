-- session_names: text goes over the connection as UTF-8 of up to four bytes.
SET NAMES utf8mb4;
