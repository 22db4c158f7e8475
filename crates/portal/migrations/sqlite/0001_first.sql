-- Identifiers are UUIDv7 as 16 bytes, times are Unix milliseconds, addresses canonical text.
-- Rows that end are deleted; what happened is in `audit`.

CREATE TABLE account (
    id                 BLOB PRIMARY KEY NOT NULL,
    name               TEXT NOT NULL,
    ipv4_range         TEXT NOT NULL,
    ipv6_range         TEXT NOT NULL,
    ipv4_proxy_range   TEXT NOT NULL,
    ipv6_proxy_range   TEXT NOT NULL,
    dns_upstreams      TEXT NOT NULL DEFAULT '[]',
    search_domains     TEXT NOT NULL DEFAULT '[]',
    created_ms         INTEGER NOT NULL
) STRICT;

CREATE TABLE actor (
    id          BLOB PRIMARY KEY NOT NULL,
    account_id  BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL CHECK (kind IN ('user', 'service_account')),
    name        TEXT NOT NULL,
    admin       INTEGER NOT NULL DEFAULT 0,
    enabled     INTEGER NOT NULL DEFAULT 1,
    created_ms  INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT;

CREATE TABLE actor_group (
    id          BLOB PRIMARY KEY NOT NULL,
    account_id  BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    everyone    INTEGER NOT NULL DEFAULT 0,
    created_ms  INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT;

CREATE TABLE membership (
    group_id    BLOB NOT NULL REFERENCES actor_group (id) ON DELETE CASCADE,
    actor_id    BLOB NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (group_id, actor_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX membership_actor ON membership (actor_id);

CREATE TABLE site (
    id          BLOB PRIMARY KEY NOT NULL,
    account_id  BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    created_ms  INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT;

CREATE TABLE resource (
    id          BLOB PRIMARY KEY NOT NULL,
    account_id  BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    site_id     BLOB NOT NULL REFERENCES site (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    address     TEXT NOT NULL,
    filters     TEXT NOT NULL DEFAULT '[]',
    created_ms  INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT;

CREATE INDEX resource_site ON resource (site_id);

CREATE TABLE policy (
    id           BLOB PRIMARY KEY NOT NULL,
    account_id   BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    group_id     BLOB NOT NULL REFERENCES actor_group (id) ON DELETE CASCADE,
    resource_id  BLOB NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
    enabled      INTEGER NOT NULL DEFAULT 1,
    created_ms   INTEGER NOT NULL,
    UNIQUE (group_id, resource_id)
) STRICT;

CREATE INDEX policy_resource ON policy (resource_id);

CREATE TABLE token (
    id            BLOB PRIMARY KEY NOT NULL,
    account_id    BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind          TEXT NOT NULL CHECK (kind IN ('client', 'gateway', 'relay', 'api')),
    name          TEXT NOT NULL,
    hash          BLOB NOT NULL,
    actor_id      BLOB REFERENCES actor (id) ON DELETE CASCADE,
    site_id       BLOB REFERENCES site (id) ON DELETE CASCADE,
    created_ms    INTEGER NOT NULL,
    expires_ms    INTEGER,
    revoked_ms    INTEGER,
    last_used_ms  INTEGER,
    CHECK (kind NOT IN ('client', 'api') OR actor_id IS NOT NULL),
    CHECK (kind <> 'gateway' OR site_id IS NOT NULL)
) STRICT;

CREATE INDEX token_actor ON token (actor_id);
CREATE INDEX token_site ON token (site_id);

-- A client or a gateway. It is the same device as long as its owner and `external_id` are.
CREATE TABLE device (
    id             BLOB PRIMARY KEY NOT NULL,
    account_id     BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind           TEXT NOT NULL CHECK (kind IN ('client', 'gateway')),
    external_id    BLOB NOT NULL,
    actor_id       BLOB REFERENCES actor (id) ON DELETE CASCADE,
    site_id        BLOB REFERENCES site (id) ON DELETE CASCADE,
    token_id       BLOB REFERENCES token (id) ON DELETE SET NULL,
    name           TEXT NOT NULL,
    public_key     BLOB NOT NULL,
    version        TEXT NOT NULL,
    address_index  INTEGER NOT NULL,
    remote_address TEXT NOT NULL DEFAULT '',
    created_ms     INTEGER NOT NULL,
    last_seen_ms   INTEGER NOT NULL,
    UNIQUE (account_id, address_index),
    CHECK ((kind = 'client') = (actor_id IS NOT NULL)),
    CHECK ((kind = 'gateway') = (site_id IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX device_client ON device (actor_id, external_id) WHERE kind = 'client';
CREATE UNIQUE INDEX device_gateway ON device (site_id, external_id) WHERE kind = 'gateway';

CREATE TABLE relay (
    id            BLOB PRIMARY KEY NOT NULL,
    account_id    BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    external_id   BLOB NOT NULL,
    token_id      BLOB REFERENCES token (id) ON DELETE SET NULL,
    name          TEXT NOT NULL,
    version       TEXT NOT NULL,
    ipv4          TEXT,
    ipv6          TEXT,
    port          INTEGER NOT NULL,
    created_ms    INTEGER NOT NULL,
    last_seen_ms  INTEGER NOT NULL,
    UNIQUE (account_id, external_id)
) STRICT;

-- One row for each pair that was ever introduced: `epoch` only grows. While `is_open`, every
-- further authorization of the pair rests on the same credentials.
CREATE TABLE connection (
    client_id         BLOB NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    gateway_id        BLOB NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    epoch             INTEGER NOT NULL,
    is_open           INTEGER NOT NULL,
    client_ufrag      TEXT NOT NULL,
    client_password   TEXT NOT NULL,
    gateway_ufrag     TEXT NOT NULL,
    gateway_password  TEXT NOT NULL,
    created_ms        INTEGER NOT NULL,
    PRIMARY KEY (client_id, gateway_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX connection_gateway ON connection (gateway_id);

CREATE TABLE authorization (
    id           BLOB PRIMARY KEY NOT NULL,
    account_id   BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    client_id    BLOB NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    gateway_id   BLOB NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    resource_id  BLOB NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
    policy_id    BLOB NOT NULL REFERENCES policy (id) ON DELETE CASCADE,
    token_id     BLOB NOT NULL REFERENCES token (id) ON DELETE CASCADE,
    request_id   INTEGER NOT NULL,
    created_ms   INTEGER NOT NULL,
    expires_ms   INTEGER NOT NULL
) STRICT;

CREATE INDEX authorization_client ON authorization (client_id, request_id);
CREATE INDEX authorization_gateway ON authorization (gateway_id);
CREATE INDEX authorization_resource ON authorization (resource_id);
CREATE INDEX authorization_policy ON authorization (policy_id);
CREATE INDEX authorization_token ON authorization (token_id);
CREATE INDEX authorization_expires ON authorization (expires_ms);

CREATE TABLE audit (
    id            BLOB PRIMARY KEY NOT NULL,
    account_id    BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    at_ms         INTEGER NOT NULL,
    who           TEXT NOT NULL,
    address       TEXT NOT NULL,
    action        TEXT NOT NULL,
    subject_kind  TEXT NOT NULL,
    subject_id    BLOB,
    detail        TEXT NOT NULL
) STRICT;

-- What the peers are still to be told; written by the transaction that made it true.
CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id  BLOB NOT NULL,
    event       TEXT NOT NULL
) STRICT;
