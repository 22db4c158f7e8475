-- How people sign in: passwords of local administrators, and sessions of the browser. Secrets are keyed hashes, or sealed under the portal's key.

-- The sign-in of a local administrator. `totp_step` is that of the last code that was accepted:
-- none is accepted twice.
CREATE TABLE local_credential (
    actor_id       UUID PRIMARY KEY REFERENCES actor (id) ON DELETE CASCADE,
    password_hash  TEXT NOT NULL,
    totp_sealed    TEXT NOT NULL,
    totp_step      BIGINT NOT NULL,
    changed_ms     BIGINT NOT NULL
);

-- Instead of a code of the authenticator, once each.
CREATE TABLE recovery_code (
    actor_id  UUID NOT NULL REFERENCES local_credential (actor_id) ON DELETE CASCADE,
    hash      BYTEA NOT NULL,
    PRIMARY KEY (actor_id, hash)
);

-- A link that lets its holder choose the password and the authenticator of an administrator.
CREATE TABLE welcome_link (
    id          UUID PRIMARY KEY,
    actor_id    UUID NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    hash        BYTEA NOT NULL,
    expires_ms  BIGINT NOT NULL
);

CREATE TABLE web_session (
    id                UUID PRIMARY KEY,
    account_id        UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    actor_id          UUID NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    hash              BYTEA NOT NULL,
    provider          TEXT NOT NULL,
    created_ms        BIGINT NOT NULL,
    authenticated_ms  BIGINT NOT NULL,
    last_seen_ms      BIGINT NOT NULL,
    expires_ms        BIGINT NOT NULL,
    address           TEXT NOT NULL,
    user_agent        TEXT NOT NULL
);

CREATE INDEX web_session_actor ON web_session (actor_id);

-- How the portal is reached, for links that it writes.
CREATE TABLE sign_in_setting (
    account_id  UUID PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
    public_url  TEXT
);
