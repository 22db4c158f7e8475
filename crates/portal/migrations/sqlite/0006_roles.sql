-- What an actor may do with the portal itself. Who was an administrator stays one; the first of them, whom bootstrap made,
-- becomes the owner.
ALTER TABLE actor ADD COLUMN role TEXT NOT NULL DEFAULT 'none' CHECK (role IN ('owner', 'admin', 'auditor', 'none'));
UPDATE actor SET role = 'admin' WHERE admin;
UPDATE actor SET role = 'owner' WHERE admin AND id = (
    SELECT first.id FROM actor first
    WHERE first.account_id = actor.account_id AND first.admin ORDER BY first.enabled DESC, first.id LIMIT 1);
ALTER TABLE actor DROP COLUMN admin;

-- What an API token may be used for, separated by spaces; everything that its actor may do when absent.
ALTER TABLE token ADD COLUMN scopes TEXT;

-- Answers to requests that carried an idempotency key; forgotten after a day.
CREATE TABLE idempotency (
    token_id    BLOB NOT NULL REFERENCES token (id) ON DELETE CASCADE,
    key         TEXT NOT NULL,
    digest      BLOB NOT NULL,
    status      INTEGER,
    answer      TEXT,
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (token_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_created ON idempotency (created_ms);

-- People and groups that a directory manages, by the name of the protocol, with what it calls and says of them.
ALTER TABLE actor ADD COLUMN managed_by TEXT;
ALTER TABLE actor ADD COLUMN external_id TEXT;
ALTER TABLE actor ADD COLUMN attributes TEXT;
ALTER TABLE actor ADD COLUMN modified_ms INTEGER;
ALTER TABLE actor_group ADD COLUMN managed_by TEXT;
ALTER TABLE actor_group ADD COLUMN external_id TEXT;
ALTER TABLE actor_group ADD COLUMN modified_ms INTEGER;
