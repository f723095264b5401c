-- project_number: finds a project.
SELECT number FROM projects WHERE id = ?1;
