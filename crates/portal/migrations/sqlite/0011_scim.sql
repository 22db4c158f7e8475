-- A further kind of token. SQLite cannot alter a CHECK; a table made anew would take along what refers to it, and lose
-- the columns that other migrations add. So the text of the constraint is changed, as SQLite's documentation of ALTER TABLE
-- has it for constraints that only allow more: no row has to change.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, '''relay'', ''api''))', '''relay'', ''api'', ''scim''))')
WHERE type = 'table' AND name = 'token';
PRAGMA writable_schema = RESET;

CREATE UNIQUE INDEX actor_external ON actor (account_id, managed_by, external_id);
CREATE UNIQUE INDEX group_external ON actor_group (account_id, managed_by, external_id);
