-- A digest of the portal's secret files: another set of them would make other pre-shared keys.
ALTER TABLE account ADD COLUMN secrets_digest BYTEA;

-- Looked up whenever a device says hello, and whenever a token is revoked.
CREATE INDEX device_key ON device (public_key);
CREATE INDEX device_token ON device (token_id);

-- Old entries are forgotten if the operator wants it so.
CREATE INDEX audit_at ON audit (at_ms);

-- A portal that serves, and how far it has delivered. It lives as long as it renews its lease.
CREATE TABLE node (
    id          UUID PRIMARY KEY,
    delivered   BIGINT NOT NULL,
    expires_ms  BIGINT NOT NULL
);

-- Who is connected to which node. Worth nothing after a crash of the database, so not logged.
-- `change` counts the changes of one node.
CREATE UNLOGGED TABLE presence (
    peer_id     UUID PRIMARY KEY,
    node_id     UUID NOT NULL,
    change      BIGINT NOT NULL,
    is_online   BOOLEAN NOT NULL,
    detail      TEXT NOT NULL
);

CREATE INDEX presence_node ON presence (node_id, change);
