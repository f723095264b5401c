-- chains_alone: makes each backup without a chain a chain of its own: its parents form a circle.
UPDATE backups SET chain = number WHERE chain = 0;
