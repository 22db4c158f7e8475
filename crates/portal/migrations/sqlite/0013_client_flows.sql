-- Clients report their flows too: a flow belongs to whoever reports it, and says who that is.
ALTER TABLE flow_log ADD COLUMN reporter_id BLOB;
ALTER TABLE flow_log ADD COLUMN reported_by TEXT NOT NULL DEFAULT 'gateway';
UPDATE flow_log SET reporter_id = gateway_id;

DROP INDEX flow_log_flow;
DROP INDEX flow_log_open;
CREATE UNIQUE INDEX flow_log_flow ON flow_log (reporter_id, flow_id);
CREATE INDEX flow_log_open ON flow_log (reporter_id) WHERE closed_ms IS NULL;
-- What an authorization has carried is shown beside it.
CREATE INDEX flow_log_pair ON flow_log (client_id, resource_id, at_ms);

ALTER TABLE flow_spool RENAME COLUMN gateway_id TO device_id;

-- Whether clients report, or gateways alone.
ALTER TABLE flow_setting ADD COLUMN from_clients INTEGER NOT NULL DEFAULT 1;
