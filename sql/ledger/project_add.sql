-- project_add: adds a project.
INSERT OR IGNORE INTO projects (id) VALUES (?1);
