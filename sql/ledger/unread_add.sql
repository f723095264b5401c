-- unread_add: adds a live backup whose whole row must be read.
INSERT INTO unread (id, wanted) VALUES (?1, ?2);
