-- What flows gateways report, with the names of those concerned as they were then: the log outlives what it tells of,
-- so nothing refers to other tables. `seq` counts reports: a flow that is reported again gets a new one.
CREATE TABLE flow_log (
    id                BLOB PRIMARY KEY NOT NULL,
    account_id        BLOB NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    seq               INTEGER NOT NULL,
    gateway_id        BLOB NOT NULL,
    gateway_name      TEXT NOT NULL,
    flow_id           BLOB NOT NULL,
    client_id         BLOB,
    client_name       TEXT,
    actor_id          BLOB,
    actor_name        TEXT,
    resource_id       BLOB,
    resource_name     TEXT,
    authorization_id  BLOB,
    protocol          INTEGER NOT NULL,
    source            TEXT NOT NULL,
    source_port       INTEGER NOT NULL,
    destination       TEXT NOT NULL,
    destination_port  INTEGER NOT NULL,
    name              TEXT,
    path              TEXT,
    opened_ms         INTEGER NOT NULL,
    at_ms             INTEGER NOT NULL,
    closed_ms         INTEGER,
    end_reason        TEXT,
    sent_packets      INTEGER NOT NULL,
    sent_bytes        INTEGER NOT NULL,
    received_packets  INTEGER NOT NULL,
    received_bytes    INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX flow_log_flow ON flow_log (gateway_id, flow_id);
CREATE UNIQUE INDEX flow_log_seq ON flow_log (account_id, seq);
CREATE INDEX flow_log_at ON flow_log (account_id, at_ms);
CREATE INDEX flow_log_open ON flow_log (gateway_id) WHERE closed_ms IS NULL;

-- The last report of each gateway that is stored: what is sent again is skipped.
CREATE TABLE flow_spool (
    gateway_id  BLOB PRIMARY KEY NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    spool_id    BLOB NOT NULL,
    number      INTEGER NOT NULL
) STRICT;

-- How long flows are kept, and where they are sent. Without a row everything is as the program has it.
CREATE TABLE flow_setting (
    account_id   BLOB PRIMARY KEY NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    last_seq     INTEGER NOT NULL,
    keep_days    INTEGER NOT NULL,
    max_rows     INTEGER NOT NULL,
    sink_url     TEXT,
    sink_sealed  TEXT,
    sink_seq     INTEGER NOT NULL,
    sink_at_ms   INTEGER,
    sink_error   TEXT
) STRICT;
