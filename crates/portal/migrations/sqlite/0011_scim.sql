-- A further kind of token. SQLite cannot change a CHECK, so the table is made anew, and what refers to it is put back:
-- dropping a table deletes its rows first, and what goes with them.
CREATE TEMP TABLE kept_lease AS SELECT * FROM lease;
CREATE TEMP TABLE kept_device AS SELECT id, token_id FROM device WHERE token_id IS NOT NULL;
CREATE TEMP TABLE kept_relay AS SELECT id, token_id FROM relay WHERE token_id IS NOT NULL;
CREATE TEMP TABLE kept_idempotency AS SELECT * FROM idempotency;

CREATE TABLE token_new (
    id            BLOB PRIMARY KEY NOT NULL,
    account_id    BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind          TEXT NOT NULL CHECK (kind IN ('client', 'gateway', 'relay', 'api', 'scim')),
    name          TEXT NOT NULL,
    hash          BLOB NOT NULL,
    actor_id      BLOB REFERENCES actor (id) ON DELETE CASCADE,
    site_id       BLOB REFERENCES site (id) ON DELETE CASCADE,
    created_ms    INTEGER NOT NULL,
    expires_ms    INTEGER,
    revoked_ms    INTEGER,
    last_used_ms  INTEGER,
    scopes        TEXT,
    CHECK (kind NOT IN ('client', 'api') OR actor_id IS NOT NULL),
    CHECK (kind <> 'gateway' OR site_id IS NOT NULL)
) STRICT;

INSERT INTO token_new (id, account_id, kind, name, hash, actor_id, site_id, created_ms, expires_ms, revoked_ms,
                       last_used_ms, scopes)
SELECT id, account_id, kind, name, hash, actor_id, site_id, created_ms, expires_ms, revoked_ms, last_used_ms, scopes
FROM token;
DROP TABLE token;
ALTER TABLE token_new RENAME TO token;
CREATE INDEX token_actor ON token (actor_id);
CREATE INDEX token_site ON token (site_id);

INSERT INTO lease SELECT * FROM kept_lease;
UPDATE device SET token_id = kept_device.token_id FROM kept_device WHERE kept_device.id = device.id;
UPDATE relay SET token_id = kept_relay.token_id FROM kept_relay WHERE kept_relay.id = relay.id;
INSERT INTO idempotency SELECT * FROM kept_idempotency;

DROP TABLE kept_lease;
DROP TABLE kept_device;
DROP TABLE kept_relay;
DROP TABLE kept_idempotency;

CREATE UNIQUE INDEX actor_external ON actor (account_id, managed_by, external_id);
CREATE UNIQUE INDEX group_external ON actor_group (account_id, managed_by, external_id);
