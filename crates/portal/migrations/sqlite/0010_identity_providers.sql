-- OpenID Connect providers that people sign in with. The name is what sessions say of who authenticated somebody; the secret is
-- sealed under the portal's key.
CREATE TABLE auth_provider (
    id                    BLOB PRIMARY KEY NOT NULL,
    account_id            BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    name                  TEXT NOT NULL,
    issuer                TEXT NOT NULL,
    client_id             TEXT NOT NULL,
    client_secret_sealed  TEXT,
    scopes                TEXT NOT NULL,
    group_claim           TEXT,
    email_domains         TEXT NOT NULL,
    ca_pem                TEXT,
    links_directory       INTEGER NOT NULL DEFAULT 0,
    just_in_time          INTEGER NOT NULL DEFAULT 1,
    enabled               INTEGER NOT NULL DEFAULT 1,
    created_ms            INTEGER NOT NULL,
    changed_ms            INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT;

-- Whom a provider's subjects are here.
CREATE TABLE identity (
    id           BLOB PRIMARY KEY NOT NULL,
    provider_id  BLOB NOT NULL REFERENCES auth_provider (id) ON DELETE CASCADE,
    subject      TEXT NOT NULL,
    actor_id     BLOB NOT NULL REFERENCES actor (id) ON DELETE CASCADE,
    created_ms   INTEGER NOT NULL,
    UNIQUE (provider_id, subject)
) STRICT;

CREATE INDEX identity_actor ON identity (actor_id);

-- Groups whose members are who the provider says; `external_id` is what the provider calls them.
ALTER TABLE actor_group ADD COLUMN provider_id BLOB REFERENCES auth_provider (id) ON DELETE SET NULL;
CREATE UNIQUE INDEX actor_group_of_provider ON actor_group (provider_id, external_id) WHERE provider_id IS NOT NULL;
