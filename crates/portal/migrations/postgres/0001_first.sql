-- The same tables as on SQLite, see there. `authorization` is a reserved word and called `lease`.

CREATE TABLE account (
    id                 UUID PRIMARY KEY,
    name               TEXT NOT NULL,
    ipv4_range         TEXT NOT NULL,
    ipv6_range         TEXT NOT NULL,
    ipv4_proxy_range   TEXT NOT NULL,
    ipv6_proxy_range   TEXT NOT NULL,
    dns_upstreams      TEXT NOT NULL DEFAULT '[]',
    search_domains     TEXT NOT NULL DEFAULT '[]',
    created_ms         BIGINT NOT NULL
);

CREATE TABLE actor (
    id          UUID PRIMARY KEY,
    account_id  UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL CHECK (kind IN ('user', 'service_account')),
    name        TEXT NOT NULL,
    admin       BOOLEAN NOT NULL DEFAULT FALSE,
    enabled     BOOLEAN NOT NULL DEFAULT TRUE,
    created_ms  BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

CREATE TABLE actor_group (
    id          UUID PRIMARY KEY,
    account_id  UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    everyone    BOOLEAN NOT NULL DEFAULT FALSE,
    created_ms  BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

CREATE TABLE membership (
    group_id    UUID NOT NULL REFERENCES actor_group (id) ON DELETE CASCADE,
    actor_id    UUID NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    created_ms  BIGINT NOT NULL,
    PRIMARY KEY (group_id, actor_id)
);

CREATE INDEX membership_actor ON membership (actor_id);

CREATE TABLE site (
    id          UUID PRIMARY KEY,
    account_id  UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    created_ms  BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

CREATE TABLE resource (
    id          UUID PRIMARY KEY,
    account_id  UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    site_id     UUID NOT NULL REFERENCES site (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    address     TEXT NOT NULL,
    filters     TEXT NOT NULL DEFAULT '[]',
    created_ms  BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

CREATE INDEX resource_site ON resource (site_id);

CREATE TABLE policy (
    id           UUID PRIMARY KEY,
    account_id   UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    group_id     UUID NOT NULL REFERENCES actor_group (id) ON DELETE CASCADE,
    resource_id  UUID NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
    enabled      BOOLEAN NOT NULL DEFAULT TRUE,
    created_ms   BIGINT NOT NULL,
    UNIQUE (group_id, resource_id)
);

CREATE INDEX policy_resource ON policy (resource_id);

CREATE TABLE token (
    id            UUID PRIMARY KEY,
    account_id    UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind          TEXT NOT NULL CHECK (kind IN ('client', 'gateway', 'relay', 'api')),
    name          TEXT NOT NULL,
    hash          BYTEA NOT NULL,
    actor_id      UUID REFERENCES actor (id) ON DELETE CASCADE,
    site_id       UUID REFERENCES site (id) ON DELETE CASCADE,
    created_ms    BIGINT NOT NULL,
    expires_ms    BIGINT,
    revoked_ms    BIGINT,
    last_used_ms  BIGINT,
    CHECK (kind NOT IN ('client', 'api') OR actor_id IS NOT NULL),
    CHECK (kind <> 'gateway' OR site_id IS NOT NULL)
);

CREATE INDEX token_actor ON token (actor_id);
CREATE INDEX token_site ON token (site_id);

CREATE TABLE device (
    id             UUID PRIMARY KEY,
    account_id     UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind           TEXT NOT NULL CHECK (kind IN ('client', 'gateway')),
    external_id    UUID NOT NULL,
    actor_id       UUID REFERENCES actor (id) ON DELETE CASCADE,
    site_id        UUID REFERENCES site (id) ON DELETE CASCADE,
    token_id       UUID REFERENCES token (id) ON DELETE SET NULL,
    name           TEXT NOT NULL,
    public_key     BYTEA NOT NULL,
    version        TEXT NOT NULL,
    address_index  BIGINT NOT NULL,
    remote_address TEXT NOT NULL DEFAULT '',
    created_ms     BIGINT NOT NULL,
    last_seen_ms   BIGINT NOT NULL,
    UNIQUE (account_id, address_index),
    CHECK ((kind = 'client') = (actor_id IS NOT NULL)),
    CHECK ((kind = 'gateway') = (site_id IS NOT NULL))
);

CREATE UNIQUE INDEX device_client ON device (actor_id, external_id) WHERE kind = 'client';
CREATE UNIQUE INDEX device_gateway ON device (site_id, external_id) WHERE kind = 'gateway';

CREATE TABLE relay (
    id            UUID PRIMARY KEY,
    account_id    UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    external_id   UUID NOT NULL,
    token_id      UUID REFERENCES token (id) ON DELETE SET NULL,
    name          TEXT NOT NULL,
    version       TEXT NOT NULL,
    ipv4          TEXT,
    ipv6          TEXT,
    port          BIGINT NOT NULL,
    created_ms    BIGINT NOT NULL,
    last_seen_ms  BIGINT NOT NULL,
    UNIQUE (account_id, external_id)
);

CREATE TABLE connection (
    client_id         UUID NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    gateway_id        UUID NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    epoch             BIGINT NOT NULL,
    is_open           BOOLEAN NOT NULL,
    client_ufrag      TEXT NOT NULL,
    client_password   TEXT NOT NULL,
    gateway_ufrag     TEXT NOT NULL,
    gateway_password  TEXT NOT NULL,
    created_ms        BIGINT NOT NULL,
    PRIMARY KEY (client_id, gateway_id)
);

CREATE INDEX connection_gateway ON connection (gateway_id);

CREATE TABLE lease (
    id           UUID PRIMARY KEY,
    account_id   UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    client_id    UUID NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    gateway_id   UUID NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    resource_id  UUID NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
    policy_id    UUID NOT NULL REFERENCES policy (id) ON DELETE CASCADE,
    token_id     UUID NOT NULL REFERENCES token (id) ON DELETE CASCADE,
    request_id   BIGINT NOT NULL,
    created_ms   BIGINT NOT NULL,
    expires_ms   BIGINT NOT NULL
);

CREATE INDEX lease_client ON lease (client_id, request_id);
CREATE INDEX lease_gateway ON lease (gateway_id);
CREATE INDEX lease_resource ON lease (resource_id);
CREATE INDEX lease_policy ON lease (policy_id);
CREATE INDEX lease_token ON lease (token_id);
CREATE INDEX lease_expires ON lease (expires_ms);

CREATE TABLE audit (
    id            UUID PRIMARY KEY,
    account_id    UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    at_ms         BIGINT NOT NULL,
    who           TEXT NOT NULL,
    address       TEXT NOT NULL,
    action        TEXT NOT NULL,
    subject_kind  TEXT NOT NULL,
    subject_id    UUID,
    detail        TEXT NOT NULL
);

CREATE TABLE outbox (
    seq         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  UUID NOT NULL,
    event       TEXT NOT NULL
);
