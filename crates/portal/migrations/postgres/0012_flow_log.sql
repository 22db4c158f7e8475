-- What flows gateways report, with the names of those concerned as they were then: the log outlives what it tells of,
-- so nothing refers to other tables. `seq` counts reports: a flow that is reported again gets a new one.
CREATE TABLE flow_log (
    id                UUID PRIMARY KEY,
    account_id        UUID NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    seq               BIGINT NOT NULL,
    gateway_id        UUID NOT NULL,
    gateway_name      TEXT NOT NULL,
    flow_id           UUID NOT NULL,
    client_id         UUID,
    client_name       TEXT,
    actor_id          UUID,
    actor_name        TEXT,
    resource_id       UUID,
    resource_name     TEXT,
    authorization_id  UUID,
    protocol          BIGINT NOT NULL,
    source            TEXT NOT NULL,
    source_port       BIGINT NOT NULL,
    destination       TEXT NOT NULL,
    destination_port  BIGINT NOT NULL,
    name              TEXT,
    path              TEXT,
    opened_ms         BIGINT NOT NULL,
    at_ms             BIGINT NOT NULL,
    closed_ms         BIGINT,
    end_reason        TEXT,
    sent_packets      BIGINT NOT NULL,
    sent_bytes        BIGINT NOT NULL,
    received_packets  BIGINT NOT NULL,
    received_bytes    BIGINT NOT NULL
);

CREATE UNIQUE INDEX flow_log_flow ON flow_log (gateway_id, flow_id);
CREATE UNIQUE INDEX flow_log_seq ON flow_log (account_id, seq);
CREATE INDEX flow_log_at ON flow_log (account_id, at_ms);
CREATE INDEX flow_log_open ON flow_log (gateway_id) WHERE closed_ms IS NULL;

-- The last report of each gateway that is stored: what is sent again is skipped.
CREATE TABLE flow_spool (
    gateway_id  UUID PRIMARY KEY REFERENCES device (id) ON DELETE CASCADE,
    spool_id    UUID NOT NULL,
    number      BIGINT NOT NULL
);

-- How long flows are kept, and where they are sent. Without a row everything is as the program has it.
CREATE TABLE flow_setting (
    account_id   UUID PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
    last_seq     BIGINT NOT NULL,
    keep_days    BIGINT NOT NULL,
    max_rows     BIGINT NOT NULL,
    sink_url     TEXT,
    sink_sealed  TEXT,
    sink_seq     BIGINT NOT NULL,
    sink_at_ms   BIGINT,
    sink_error   TEXT
);
