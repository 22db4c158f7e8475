-- Tokens that a device was given because somebody signed in: who authenticated them, and when. Both absent: an administrator
-- made the token.
ALTER TABLE token ADD COLUMN provider TEXT;
ALTER TABLE token ADD COLUMN authenticated_ms INTEGER;

ALTER TABLE sign_in_setting ADD COLUMN device_session_days INTEGER NOT NULL DEFAULT 30;
ALTER TABLE sign_in_setting ADD COLUMN devices_per_user INTEGER;

-- Sign-ins of devices under way: a device code from its beginning, an authorization code from the approval. A code that was
-- used stays for a while, so that its second use is noticed. Codes are keyed hashes.
CREATE TABLE device_sign_in (
    id                BLOB PRIMARY KEY NOT NULL,
    account_id        BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind              TEXT NOT NULL CHECK (kind IN ('device', 'loopback')),
    code_hash         BLOB NOT NULL,
    user_code_hash    BLOB UNIQUE,
    challenge         TEXT,
    redirect_uri      TEXT,
    device_name       TEXT NOT NULL,
    address           TEXT NOT NULL,
    network           TEXT NOT NULL,
    created_ms        INTEGER NOT NULL,
    expires_ms        INTEGER NOT NULL,
    interval_ms       INTEGER NOT NULL,
    polled_ms         INTEGER,
    decision          TEXT NOT NULL CHECK (decision IN ('pending', 'approved', 'denied', 'used')),
    actor_id          BLOB REFERENCES actor (id) ON DELETE CASCADE,
    provider          TEXT,
    authenticated_ms  INTEGER,
    token_id          BLOB REFERENCES token (id) ON DELETE CASCADE
) STRICT;

CREATE INDEX device_sign_in_expires ON device_sign_in (expires_ms);
