-- How people sign in: passwords of local administrators, sessions of the browser, and devices
-- that wait for their user. Secrets are keyed hashes, or sealed under the portal's key.

-- The sign-in of a local administrator. `totp_step` is that of the last code that was accepted:
-- none is accepted twice.
CREATE TABLE local_credential (
    actor_id       BLOB PRIMARY KEY NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    password_hash  TEXT NOT NULL,
    totp_sealed    TEXT NOT NULL,
    totp_step      INTEGER NOT NULL,
    changed_ms     INTEGER NOT NULL
) STRICT;

-- Instead of a code of the authenticator, once each.
CREATE TABLE recovery_code (
    actor_id  BLOB NOT NULL REFERENCES local_credential (actor_id) ON DELETE CASCADE,
    hash      BLOB NOT NULL,
    PRIMARY KEY (actor_id, hash)
) STRICT;

-- A link that lets its holder choose the password and the authenticator of an administrator.
CREATE TABLE welcome_link (
    id          BLOB PRIMARY KEY NOT NULL,
    actor_id    BLOB NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    hash        BLOB NOT NULL,
    expires_ms  INTEGER NOT NULL
) STRICT;

CREATE TABLE web_session (
    id                BLOB PRIMARY KEY NOT NULL,
    account_id        BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    actor_id          BLOB NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    hash              BLOB NOT NULL,
    provider          TEXT NOT NULL,
    created_ms        INTEGER NOT NULL,
    authenticated_ms  INTEGER NOT NULL,
    last_seen_ms      INTEGER NOT NULL,
    expires_ms        INTEGER NOT NULL,
    address           TEXT NOT NULL,
    user_agent        TEXT NOT NULL
) STRICT;

CREATE INDEX web_session_actor ON web_session (actor_id);

-- A device that waits for its user to approve it. `renews` is the token that it has already.
CREATE TABLE device_sign_in (
    id                BLOB PRIMARY KEY NOT NULL,
    account_id        BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    hash              BLOB NOT NULL,
    user_code_hash    BLOB NOT NULL UNIQUE,
    challenge         BLOB,
    redirect          TEXT,
    device_name       TEXT NOT NULL,
    address           TEXT NOT NULL,
    renews            BLOB REFERENCES token (id) ON DELETE CASCADE,
    created_ms        INTEGER NOT NULL,
    expires_ms        INTEGER NOT NULL,
    polled_ms         INTEGER NOT NULL DEFAULT 0,
    tries             INTEGER NOT NULL DEFAULT 0,
    denied            INTEGER NOT NULL DEFAULT 0,
    actor_id          BLOB REFERENCES actor (id) ON DELETE CASCADE,
    provider          TEXT,
    authenticated_ms  INTEGER
) STRICT;

CREATE INDEX device_sign_in_expires ON device_sign_in (expires_ms);

-- By whom, and when, the user of a client's token was authenticated. Absent: whoever created
-- the token vouched for the user at that moment.
ALTER TABLE token ADD COLUMN provider TEXT;
ALTER TABLE token ADD COLUMN authenticated_ms INTEGER;

-- How the portal is reached, for links that it writes, and what holds for sign-ins of devices.
CREATE TABLE sign_in_setting (
    account_id         BLOB PRIMARY KEY NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    public_url         TEXT,
    device_session_ms  INTEGER NOT NULL DEFAULT 604800000,
    device_limit       INTEGER
) STRICT;
