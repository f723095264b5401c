-- chains_alone: makes each other backup a chain of its own: its parents are a circle.
UPDATE backups SET chain = number WHERE chain = 0;
