-- How people sign in: passwords of local administrators, and sessions of the browser. Secrets are keyed hashes, or sealed under the portal's key.

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

-- How the portal is reached, for links that it writes.
CREATE TABLE sign_in_setting (
    account_id  BLOB PRIMARY KEY NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    public_url  TEXT
) STRICT;
