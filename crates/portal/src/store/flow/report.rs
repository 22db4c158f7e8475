//! Taking in what gateways and clients report.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;

use adit_policy::{GatewayId, ResourceId};
use adit_protocol::flow::{FlowRecord, FlowReport, Flows, FlowsStored, MAX_FLOW_NAME};
use uuid::Uuid;

use super::super::sql::Value;
use super::super::{Change, StoreError, sql};

/// Rows of one statement.
const TOGETHER: usize = 32;

/// How far the clock of a reporter may be ahead of ours; later times are cut to that.
const MOST_AHEAD_MS: i64 = 60_000;

/// Every column, in the order of the values.
const COLUMNS: [&str; 30] = [
    "id",
    "account_id",
    "seq",
    "reporter_id",
    "reported_by",
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

/// Who reports.
#[derive(Debug, Clone)]
pub(crate) enum Reporter {
    /// A gateway, flows of the clients that were introduced to it.
    Gateway {
        /// Its id.
        id: GatewayId,
        /// Its name.
        name: String,
    },
    /// A client, its own flows.
    Client(FlowClient),
}

/// A device, and whose it is.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct FlowClient {
    /// Its id.
    pub(crate) client_id: Uuid,
    /// Its name.
    pub(crate) client_name: String,
    /// Who is signed in on it.
    pub(crate) actor_id: Uuid,
    /// Their name.
    pub(crate) actor_name: String,
}

/// A gateway.
#[derive(Debug, Clone, sqlx::FromRow)]
struct FlowGateway {
    gateway_id: Uuid,
    gateway_name: String,
}

impl Reporter {
    /// The device that reports.
    pub(crate) const fn id(&self) -> Uuid {
        match self {
            Self::Gateway { id, .. } => id.as_uuid(),
            Self::Client(client) => client.client_id,
        }
    }

    /// What it is, as the log says it.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Gateway { .. } => "gateway",
            Self::Client(_) => "client",
        }
    }

    /// Why flows ended that it never closed.
    const fn lost(&self) -> &'static str {
        match self {
            Self::Gateway { .. } => "gateway_lost",
            Self::Client(_) => "client_lost",
        }
    }
}

/// A client and a gateway that were introduced to each other.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Introduced {
    #[sqlx(flatten)]
    client: FlowClient,
    #[sqlx(flatten)]
    gateway: FlowGateway,
}

/// What is believed of those whom a reporter names.
struct Beliefs<'a> {
    reporter: &'a Reporter,
    /// By the id of the one at the other end.
    introduced: HashMap<Uuid, Option<Introduced>>,
    resources: HashMap<(Uuid, ResourceId), Option<String>>,
}

/// A report with those whom it is about.
struct Believed<'a> {
    record: &'a FlowRecord,
    gateway: FlowGateway,
    client: Option<FlowClient>,
    resource: Option<String>,
}

impl Change {
    /// Stores those reports of a batch that were not stored before, and says up to which number all are stored now.
    pub(crate) async fn store_flows(
        &mut self,
        reporter: &Reporter,
        batch: &Flows,
    ) -> Result<FlowsStored, StoreError> {
        let stored = self.last_report(reporter.id(), batch.spool).await?;
        let mut beliefs = Beliefs { reporter, introduced: HashMap::new(), resources: HashMap::new() };
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
                    self.close_flows_of(reporter).await?;
                }
            }
        }
        self.store_run(&mut beliefs, &run).await?;
        if last > stored {
            self.note_last_report(reporter.id(), batch.spool, last).await?;
        }
        Ok(FlowsStored { spool: batch.spool, number: u64::try_from(last).unwrap_or(0) })
    }

    async fn last_report(&mut self, device: Uuid, spool: Uuid) -> Result<i64, StoreError> {
        let text = "SELECT number FROM flow_spool WHERE device_id = $1 AND spool_id = $2";
        let number = sql::query_scalar(text).bind(device).bind(spool);
        Ok(number.fetch_optional(self.sql()).await?.unwrap_or(0))
    }

    async fn note_last_report(&mut self, device: Uuid, spool: Uuid, number: i64) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO flow_spool (device_id, spool_id, number) VALUES ($1, $2, $3)
             ON CONFLICT (device_id) DO UPDATE SET spool_id = excluded.spool_id, number = excluded.number",
        )
        .bind(device)
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
        let mut believed = Vec::with_capacity(run.len());
        for (place, record) in run.iter().enumerate() {
            if newest[&record.id] == place {
                believed.extend(self.believed(beliefs, record).await?);
            }
        }
        for chunk in believed.chunks(TOGETHER) {
            let mut seq = self.take_flow_numbers(chunk.len() as i64).await?;
            let mut values = Vec::with_capacity(chunk.len() * COLUMNS.len());
            for report in chunk {
                seq += 1;
                values.extend(self.values(beliefs.reporter, report, seq));
            }
            sql::insert(self.sql(), &upsert(chunk.len()), values).await?;
        }
        Ok(())
    }

    /// A report with the device, the gateway and the name of the resource, if the reporter has to do with them. Nothing
    /// of a client's report through a gateway that it was never introduced to: there is nothing in it to believe.
    async fn believed<'a>(
        &mut self,
        beliefs: &mut Beliefs<'_>,
        record: &'a FlowRecord,
    ) -> Result<Option<Believed<'a>>, StoreError> {
        let introduced = self.introduced(beliefs, record).await?;
        let (gateway, client) = match (beliefs.reporter, introduced) {
            (Reporter::Gateway { id, name }, introduced) => {
                let gateway = FlowGateway { gateway_id: id.as_uuid(), gateway_name: name.clone() };
                (gateway, introduced.map(|introduced| introduced.client))
            }
            (Reporter::Client(client), Some(introduced)) => (introduced.gateway, Some(client.clone())),
            (Reporter::Client(_), None) => return Ok(None),
        };
        let resource = self.resource_at(&mut beliefs.resources, record.resource, gateway.gateway_id).await?;
        Ok(Some(Believed { record, gateway, client, resource }))
    }

    /// The reporter and whom its report names at the other end, if they were introduced.
    async fn introduced(
        &mut self,
        beliefs: &mut Beliefs<'_>,
        record: &FlowRecord,
    ) -> Result<Option<Introduced>, StoreError> {
        let own = beliefs.reporter.id();
        let (other, client, gateway) = match (beliefs.reporter, record.client, record.gateway) {
            (Reporter::Gateway { .. }, Some(client), _) => (client.as_uuid(), client.as_uuid(), own),
            (Reporter::Client(_), _, Some(gateway)) => (gateway.as_uuid(), own, gateway.as_uuid()),
            _ => return Ok(None),
        };
        let unknown = match beliefs.introduced.entry(other) {
            Entry::Occupied(known) => return Ok(known.get().clone()),
            Entry::Vacant(unknown) => unknown,
        };
        let query = sql::query_as(
            "SELECT device.id AS client_id, device.name AS client_name,
                    actor.id AS actor_id, actor.name AS actor_name,
                    gateway.id AS gateway_id, gateway.name AS gateway_name
             FROM connection JOIN device ON device.id = connection.client_id
             JOIN actor ON actor.id = device.actor_id
             JOIN device AS gateway ON gateway.id = connection.gateway_id
             WHERE connection.client_id = $1 AND connection.gateway_id = $2",
        );
        let found = query.bind(client).bind(gateway).fetch_optional(self.sql()).await?;
        Ok(unknown.insert(found).clone())
    }

    async fn resource_at(
        &mut self,
        known: &mut HashMap<(Uuid, ResourceId), Option<String>>,
        resource: ResourceId,
        gateway: Uuid,
    ) -> Result<Option<String>, StoreError> {
        let unknown = match known.entry((gateway, resource)) {
            Entry::Occupied(known) => return Ok(known.get().clone()),
            Entry::Vacant(unknown) => unknown,
        };
        let text = "SELECT name FROM resource
                    WHERE id = $1 AND site_id = (SELECT site_id FROM device WHERE id = $2)";
        let query = sql::query_scalar(text).bind(resource.as_uuid()).bind(gateway);
        Ok(unknown.insert(query.fetch_optional(self.sql()).await?).clone())
    }

    fn values(&self, reporter: &Reporter, believed: &Believed<'_>, seq: i64) -> [Value; COLUMNS.len()] {
        let Believed { record, gateway, client, resource } = believed;
        let latest = self.at_ms().saturating_add(MOST_AHEAD_MS);
        let at_ms = integer(record.at_ms).min(latest);
        let name = record.name.as_deref().filter(|name| is_presentable(name)).map(str::to_owned);
        let authorization = (client.is_some() && resource.is_some()).then(|| record.authorization.as_uuid());
        let resource_id = resource.as_ref().map(|_| record.resource.as_uuid());
        [
            Uuid::now_v7().into(),
            self.account().as_uuid().into(),
            seq.into(),
            reporter.id().into(),
            reporter.kind().to_owned().into(),
            gateway.gateway_id.into(),
            (&gateway.gateway_name).into(),
            record.id.into(),
            client.as_ref().map(|known| known.client_id).into(),
            client.as_ref().map(|known| known.client_name.clone()).into(),
            client.as_ref().map(|known| known.actor_id).into(),
            client.as_ref().map(|known| known.actor_name.clone()).into(),
            resource_id.into(),
            resource.clone().into(),
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

    /// A reporter began anew, or will say nothing more: what it had reported open ended some time after its last report.
    pub(crate) async fn close_flows_of(&mut self, reporter: &Reporter) -> Result<(), StoreError> {
        let text = "SELECT count(*) FROM flow_log WHERE reporter_id = $1 AND closed_ms IS NULL";
        let open: i64 = sql::query_scalar(text).bind(reporter.id()).fetch_one(self.sql()).await?;
        if open == 0 {
            return Ok(());
        }
        let seq = self.take_flow_numbers(open).await?;
        sql::query(
            "UPDATE flow_log SET closed_ms = at_ms, end_reason = $3, seq = $2 + open.place
             FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM flow_log
                   WHERE reporter_id = $1 AND closed_ms IS NULL) AS open
             WHERE flow_log.id = open.id",
        )
        .bind(reporter.id())
        .bind(seq)
        .bind(reporter.lost())
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
    let _ = write!(text, " ON CONFLICT (reporter_id, flow_id) DO UPDATE SET {}", updates.join(", "));
    text
}

/// Larger numbers than the database knows are nonsense, whatever they count.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// It came from a client's application; it should be a DNS name, and it must at least be fit to be shown.
fn is_presentable(name: &str) -> bool {
    name.len() <= MAX_FLOW_NAME && !name.chars().any(char::is_control)
}
