-- OpenID Connect providers that people sign in with. The name is what sessions say of who authenticated somebody; the secret is
-- sealed under the portal's key.
CREATE TABLE auth_provider (
    id                    UUID PRIMARY KEY NOT NULL,
    account_id            UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name                  TEXT NOT NULL,
    issuer                TEXT NOT NULL,
    client_id             TEXT NOT NULL,
    client_secret_sealed  TEXT,
    scopes                TEXT NOT NULL,
    group_claim           TEXT,
    email_domains         TEXT NOT NULL,
    ca_pem                TEXT,
    links_directory       BOOLEAN NOT NULL DEFAULT FALSE,
    just_in_time          BOOLEAN NOT NULL DEFAULT TRUE,
    enabled               BOOLEAN NOT NULL DEFAULT TRUE,
    created_ms            BIGINT NOT NULL,
    changed_ms            BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

-- Whom a provider's subjects are here.
CREATE TABLE identity (
    id           UUID PRIMARY KEY NOT NULL,
    provider_id  UUID NOT NULL REFERENCES auth_provider (id) ON DELETE CASCADE,
    subject      TEXT NOT NULL,
    actor_id     UUID NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    created_ms   BIGINT NOT NULL,
    UNIQUE (provider_id, subject)
);

CREATE INDEX identity_actor ON identity (actor_id);

-- Groups whose members are who the provider says; `external_id` is what the provider calls them.
ALTER TABLE actor_group ADD COLUMN provider_id UUID REFERENCES auth_provider (id) ON DELETE SET NULL;
CREATE UNIQUE INDEX actor_group_of_provider ON actor_group (provider_id, external_id) WHERE provider_id IS NOT NULL;
