-- session_names: makes text on the connection UTF-8 with up to four bytes a character.
SET NAMES utf8mb4;
