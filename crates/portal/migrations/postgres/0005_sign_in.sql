-- How people sign in: passwords of local administrators, sessions of the browser, and devices
-- that wait for their user. Secrets are keyed hashes, or sealed under the portal's key.

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

-- A device that waits for its user to approve it. `renews` is the token that it has already.
CREATE TABLE device_sign_in (
    id                UUID PRIMARY KEY,
    account_id        UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    hash              BYTEA NOT NULL,
    user_code_hash    BYTEA NOT NULL UNIQUE,
    challenge         BYTEA,
    redirect          TEXT,
    device_name       TEXT NOT NULL,
    address           TEXT NOT NULL,
    renews            UUID REFERENCES token (id) ON DELETE CASCADE,
    created_ms        BIGINT NOT NULL,
    expires_ms        BIGINT NOT NULL,
    polled_ms         BIGINT NOT NULL DEFAULT 0,
    tries             BIGINT NOT NULL DEFAULT 0,
    denied            BOOLEAN NOT NULL DEFAULT FALSE,
    actor_id          UUID REFERENCES actor (id) ON DELETE CASCADE,
    provider          TEXT,
    authenticated_ms  BIGINT
);

CREATE INDEX device_sign_in_expires ON device_sign_in (expires_ms);

-- By whom, and when, the user of a client's token was authenticated. Absent: whoever created
-- the token vouched for the user at that moment.
ALTER TABLE token ADD COLUMN provider TEXT;
ALTER TABLE token ADD COLUMN authenticated_ms BIGINT;

-- How the portal is reached, for links that it writes, and what holds for sign-ins of devices.
CREATE TABLE sign_in_setting (
    account_id         UUID PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
    public_url         TEXT,
    device_session_ms  BIGINT NOT NULL DEFAULT 604800000,
    device_limit       BIGINT
);
