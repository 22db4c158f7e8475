//! Taking in what a gateway reports.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;

use adit_policy::{ClientId, GatewayId, ResourceId};
use adit_protocol::flow::{FlowRecord, FlowReport, Flows, FlowsStored, MAX_FLOW_NAME};
use uuid::Uuid;

use super::super::sql::Value;
use super::super::{Change, StoreError, sql};

/// Rows of one statement.
const TOGETHER: usize = 32;

/// How far the clock of a gateway may be ahead of ours; later times are cut to that.
const MOST_AHEAD_MS: i64 = 60_000;

/// Every column, in the order of the values.
const COLUMNS: [&str; 28] = [
    "id",
    "account_id",
    "seq",
    "gateway_id",
    "gateway_name",
    "flow_id",
    "client_id",
    "client_name",
    "actor_id",
    "actor_name",
    "resource_id",
    "resource_name",
    "authorization_id",
    "protocol",
    "source",
    "source_port",
    "destination",
    "destination_port",
    "name",
    "path",
    "opened_ms",
    "at_ms",
    "closed_ms",
    "end_reason",
    "sent_packets",
    "sent_bytes",
    "received_packets",
    "received_bytes",
];

/// What a later report of the same flow changes.
const UPDATED: [&str; 9] = [
    "seq",
    "path",
    "at_ms",
    "closed_ms",
    "end_reason",
    "sent_packets",
    "sent_bytes",
    "received_packets",
    "received_bytes",
];

/// The gateway that reports.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    /// Its id.
    pub(crate) gateway: GatewayId,
    /// Its name.
    pub(crate) name: String,
}

/// A device that was introduced to the gateway: its name, and whose it is.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Known {
    client_id: Uuid,
    client_name: String,
    actor_id: Uuid,
    actor_name: String,
}

/// What is believed of those whom a gateway names.
struct Beliefs<'a> {
    reporter: &'a Reporter,
    clients: HashMap<ClientId, Option<Known>>,
    resources: HashMap<ResourceId, Option<String>>,
}

impl Change {
    /// Stores those reports of a batch that were not stored before, and says up to which number all are stored now.
    pub(crate) async fn store_flows(
        &mut self,
        reporter: &Reporter,
        batch: &Flows,
    ) -> Result<FlowsStored, StoreError> {
        let stored = self.last_report(reporter.gateway, batch.spool).await?;
        let mut beliefs = Beliefs { reporter, clients: HashMap::new(), resources: HashMap::new() };
        let (mut last, mut run) = (stored, Vec::new());
        for flow in &batch.flows {
            let number = integer(flow.number);
            if number <= last {
                continue;
            }
            last = number;
            match &flow.report {
                FlowReport::Flow(record) => run.push(&**record),
                FlowReport::Restarted => {
                    self.store_run(&mut beliefs, &std::mem::take(&mut run)).await?;
                    self.close_flows_of(reporter.gateway).await?;
                }
            }
        }
        self.store_run(&mut beliefs, &run).await?;
        if last > stored {
            self.note_last_report(reporter.gateway, batch.spool, last).await?;
        }
        Ok(FlowsStored { spool: batch.spool, number: u64::try_from(last).unwrap_or(0) })
    }

    async fn last_report(&mut self, gateway: GatewayId, spool: Uuid) -> Result<i64, StoreError> {
        let text = "SELECT number FROM flow_spool WHERE gateway_id = $1 AND spool_id = $2";
        let number = sql::query_scalar(text).bind(gateway.as_uuid()).bind(spool);
        Ok(number.fetch_optional(self.sql()).await?.unwrap_or(0))
    }

    async fn note_last_report(
        &mut self,
        gateway: GatewayId,
        spool: Uuid,
        number: i64,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO flow_spool (gateway_id, spool_id, number) VALUES ($1, $2, $3)
             ON CONFLICT (gateway_id) DO UPDATE SET spool_id = excluded.spool_id, number = excluded.number",
        )
        .bind(gateway.as_uuid())
        .bind(spool)
        .bind(number)
        .execute(self.sql())
        .await?;
        Ok(())
    }

    /// Stores reports among which no restart is.
    async fn store_run(&mut self, beliefs: &mut Beliefs<'_>, run: &[&FlowRecord]) -> Result<(), StoreError> {
        // One statement cannot change a row twice: the last word on each flow counts.
        let newest: HashMap<Uuid, usize> =
            run.iter().enumerate().map(|(place, record)| (record.id, place)).collect();
        let records: Vec<&FlowRecord> = run
            .iter()
            .enumerate()
            .filter(|(place, record)| newest[&record.id] == *place)
            .map(|(_, record)| *record)
            .collect();
        for chunk in records.chunks(TOGETHER) {
            let mut seq = self.take_flow_numbers(chunk.len() as i64).await?;
            let mut values = Vec::with_capacity(chunk.len() * COLUMNS.len());
            for record in chunk {
                let (client, resource) = self.believed(beliefs, record).await?;
                seq += 1;
                values.extend(self.values(beliefs.reporter, record, seq, client, resource));
            }
            sql::insert(self.sql(), &upsert(chunk.len()), values).await?;
        }
        Ok(())
    }

    /// The device and the name of the resource, if the gateway has to do with them.
    async fn believed(
        &mut self,
        beliefs: &mut Beliefs<'_>,
        record: &FlowRecord,
    ) -> Result<(Option<Known>, Option<String>), StoreError> {
        let gateway = beliefs.reporter.gateway.as_uuid();
        if let Entry::Vacant(unknown) = beliefs.clients.entry(record.client) {
            let known = sql::query_as(
                "SELECT device.id AS client_id, device.name AS client_name,
                        actor.id AS actor_id, actor.name AS actor_name
                 FROM connection JOIN device ON device.id = connection.client_id
                 JOIN actor ON actor.id = device.actor_id
                 WHERE connection.client_id = $1 AND connection.gateway_id = $2",
            );
            let known = known.bind(record.client.as_uuid()).bind(gateway).fetch_optional(self.sql()).await?;
            unknown.insert(known);
        }
        if let Entry::Vacant(unknown) = beliefs.resources.entry(record.resource) {
            let text = "SELECT name FROM resource
                        WHERE id = $1 AND site_id = (SELECT site_id FROM device WHERE id = $2)";
            let name = sql::query_scalar(text).bind(record.resource.as_uuid()).bind(gateway);
            unknown.insert(name.fetch_optional(self.sql()).await?);
        }
        let client = beliefs.clients.get(&record.client).cloned().flatten();
        Ok((client, beliefs.resources.get(&record.resource).cloned().flatten()))
    }

    fn values(
        &self,
        reporter: &Reporter,
        record: &FlowRecord,
        seq: i64,
        client: Option<Known>,
        resource: Option<String>,
    ) -> [Value; COLUMNS.len()] {
        let latest = self.at_ms().saturating_add(MOST_AHEAD_MS);
        let at_ms = integer(record.at_ms).min(latest);
        let name = record.name.as_deref().filter(|name| is_presentable(name)).map(str::to_owned);
        let authorization = (client.is_some() && resource.is_some()).then(|| record.authorization.as_uuid());
        let resource_id = resource.as_ref().map(|_| record.resource.as_uuid());
        [
            Uuid::now_v7().into(),
            self.account().as_uuid().into(),
            seq.into(),
            reporter.gateway.as_uuid().into(),
            (&reporter.name).into(),
            record.id.into(),
            client.as_ref().map(|known| known.client_id).into(),
            client.as_ref().map(|known| known.client_name.clone()).into(),
            client.as_ref().map(|known| known.actor_id).into(),
            client.as_ref().map(|known| known.actor_name.clone()).into(),
            resource_id.into(),
            resource.into(),
            authorization.into(),
            i64::from(record.protocol).into(),
            record.source.to_string().into(),
            i64::from(record.source_port).into(),
            record.destination.to_string().into(),
            i64::from(record.destination_port).into(),
            name.into(),
            record.path.map(|path| path.name().to_owned()).into(),
            integer(record.opened_ms).min(at_ms).into(),
            at_ms.into(),
            record.end.map(|_| at_ms).into(),
            record.end.map(|end| end.name().to_owned()).into(),
            integer(record.sent_packets).into(),
            integer(record.sent_bytes).into(),
            integer(record.received_packets).into(),
            integer(record.received_bytes).into(),
        ]
    }

    /// A gateway began anew: what it had reported open ended some time after its last report.
    async fn close_flows_of(&mut self, gateway: GatewayId) -> Result<(), StoreError> {
        let text = "SELECT count(*) FROM flow_log WHERE gateway_id = $1 AND closed_ms IS NULL";
        let open: i64 = sql::query_scalar(text).bind(gateway.as_uuid()).fetch_one(self.sql()).await?;
        if open == 0 {
            return Ok(());
        }
        let seq = self.take_flow_numbers(open).await?;
        sql::query(
            "UPDATE flow_log SET closed_ms = at_ms, end_reason = 'gateway_lost', seq = $2 + open.place
             FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM flow_log
                   WHERE gateway_id = $1 AND closed_ms IS NULL) AS open
             WHERE flow_log.id = open.id",
        )
        .bind(gateway.as_uuid())
        .bind(seq)
        .execute(self.sql())
        .await?;
        Ok(())
    }
}

/// The statement for so many rows; made of constants.
fn upsert(rows: usize) -> String {
    let mut text = format!("INSERT INTO flow_log ({}) VALUES ", COLUMNS.join(", "));
    for row in 0..rows {
        let first = row * COLUMNS.len() + 1;
        let places: Vec<String> = (first..first + COLUMNS.len()).map(|place| format!("${place}")).collect();
        let separator = if row == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}({})", places.join(", "));
    }
    let updates = UPDATED.map(|column| format!("{column} = excluded.{column}"));
    let _ = write!(text, " ON CONFLICT (gateway_id, flow_id) DO UPDATE SET {}", updates.join(", "));
    text
}

/// Larger numbers than the database knows are nonsense, whatever they count.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A gateway took it from a client; it should be a DNS name, and it must at least be fit to be shown.
fn is_presentable(name: &str) -> bool {
    name.len() <= MAX_FLOW_NAME && !name.chars().any(char::is_control)
}
