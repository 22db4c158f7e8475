//! What requests for access rest on, read for many of them at a time.
//!
//! Requests are made by every packet that opens a flow to something new, and a statement is a message to a thread on
//! SQLite and a round trip on PostgreSQL, during which nothing else is decided. So it takes two or three statements to
//! read everything, for one request as for as many as wait together.

use adit_policy::{ActorId, ClientId, Decision, GatewayId, ResourceId, SiteId, TokenId};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Asker, Change, StoreError, policy, sql};

/// A request for access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Who asks.
    pub(crate) client: ClientId,
    /// Whose client it is.
    pub(crate) actor: ActorId,
    /// The token of its session.
    pub(crate) token: TokenId,
    /// When the session ends.
    pub(crate) session_expires_ms: Option<i64>,
    /// For what.
    pub(crate) resource: ResourceId,
}

impl Asked {
    const fn asker(&self) -> Asker {
        let (actor, client) = (self.actor, Some(self.client));
        Asker { actor, client, session_expires_ms: self.session_expires_ms }
    }
}

/// What a request rests on besides the decision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// The token of its session is neither revoked nor expired.
    pub(crate) is_token_good: bool,
    /// The site of the resource; `None` when there is no such resource.
    pub(crate) site: Option<SiteId>,
    /// How many leases the client holds.
    pub(crate) leases: i64,
    /// What it holds on the resource now, in the order of creation.
    pub(crate) held: Vec<HeldAuthorization>,
    /// Its open connections that still carry an authorization: gateway, epoch and when the epoch began.
    pub(crate) open: Vec<(GatewayId, i64, i64)>,
    /// Gateways of the site whose token is still good.
    pub(crate) admitted: Vec<GatewayId>,
}

/// A live authorization of a client.
#[derive(Debug, Clone)]
pub(crate) struct HeldAuthorization {
    pub(crate) id: Uuid,
    pub(crate) gateway_id: Uuid,
    pub(crate) policy_id: Uuid,
    pub(crate) request_id: i64,
    pub(crate) expires_ms: i64,
}

/// One of several kinds of rows of the same shape, so that one statement brings them all.
#[derive(FromRow)]
struct StandingRow {
    /// Which request, counted from one; zero for a row about a site.
    place: i64,
    kind: i64,
    first: Option<Uuid>,
    second: Option<Uuid>,
    third: Option<Uuid>,
    one: i64,
    two: i64,
}

impl Standing {
    fn add(&mut self, row: &StandingRow) {
        match (row.kind, row.first.map(GatewayId::from_uuid)) {
            (0, _) => {
                self.site = row.first.map(SiteId::from_uuid);
                (self.is_token_good, self.leases) = (row.one != 0, row.two);
            }
            (1, Some(gateway)) => self.open.push((gateway, row.one, row.two)),
            _ => {
                let (Some(id), Some(gateway_id), Some(policy_id)) = (row.first, row.second, row.third) else {
                    return;
                };
                let (request_id, expires_ms) = (row.one, row.two);
                self.held.push(HeldAuthorization { id, gateway_id, policy_id, request_id, expires_ms });
            }
        }
    }
}

/// Sorts rows to the requests that they belong to.
fn standings(count: usize, rows: &[StandingRow]) -> Vec<Standing> {
    let mut standings = vec![Standing::default(); count];
    let place = |row: &StandingRow| usize::try_from(row.place).ok()?.checked_sub(1);
    for row in rows {
        if let Some(standing) = place(row).and_then(|place| standings.get_mut(place)) {
            standing.add(row);
        }
    }
    let of_sites = rows.iter().filter(|row| row.kind == 2);
    let admitted: Vec<(SiteId, GatewayId)> = of_sites
        .filter_map(|row| Some((SiteId::from_uuid(row.second?), GatewayId::from_uuid(row.first?))))
        .collect();
    for standing in &mut standings {
        let of_site = admitted.iter().filter(|(site, _)| Some(*site) == standing.site);
        standing.admitted = of_site.map(|(_, gateway)| *gateway).collect();
    }
    standings
}

impl Change {
    /// The decisions on which the next leases rest, inside the same transaction; in the order of the requests.
    pub(crate) async fn decide(&mut self, asked: &[Asked]) -> Result<Vec<Decision>, StoreError> {
        let at = self.at_ms();
        let asked: Vec<_> = asked.iter().map(|asked| (asked.asker(), asked.resource)).collect();
        policy::decide(self.sql(), at, &asked).await
    }

    /// What requests rest on besides the decisions, in their order.
    pub(crate) async fn standings(&mut self, asked: &[Asked]) -> Result<Vec<Standing>, StoreError> {
        // Sites come once, not once for each request. SQLite keeps to the order of a CROSS JOIN. What is behind IS TRUE
        // is not looked up by an index: a client holds few leases, a resource or a gateway may carry all there are.
        const SELECT: sql::Statement = sql::listed!(
            asked ("$1" client: uuid, "$2" token: uuid, "$3" resource: uuid),
            "SELECT place, CAST(3 AS BIGINT) AS kind, lease.id AS first, gateway_id AS second,
                    policy_id AS third, request_id AS one, expires_ms AS two
             FROM asked CROSS JOIN lease
             WHERE client_id = asked.client AND (resource_id = asked.resource) IS TRUE AND expires_ms > $4
             UNION ALL
             SELECT place, 0, (SELECT site_id FROM resource WHERE account_id = $5 AND id = asked.resource),
                    NULL, NULL,
                    CASE WHEN EXISTS (SELECT 1 FROM token WHERE id = asked.token AND revoked_ms IS NULL
                                                        AND coalesce(expires_ms > $4, TRUE))
                         THEN 1 ELSE 0 END,
                    (SELECT count(*) FROM lease WHERE client_id = asked.client)
             FROM asked
             UNION ALL
             SELECT place, 1, gateway_id, NULL, NULL, epoch, created_ms
             FROM asked CROSS JOIN connection
             WHERE client_id = asked.client AND is_open AND EXISTS (
                 SELECT 1 FROM lease
                 WHERE lease.client_id = connection.client_id
                   AND (lease.gateway_id = connection.gateway_id) IS TRUE AND expires_ms > $4)
             UNION ALL
             SELECT 0, 2, device.id, site.site_id, NULL, 0, 0
             FROM (SELECT DISTINCT site_id FROM asked JOIN resource ON resource.id = asked.resource) site
             JOIN device ON device.site_id = site.site_id AND device.kind = 'gateway'
             JOIN token ON token.id = device.token_id
             WHERE revoked_ms IS NULL AND coalesce(token.expires_ms > $4, TRUE)
             ORDER BY kind, first"
        );
        let (account, at) = (self.account(), self.at_ms());
        let uuids = |of: fn(&Asked) -> Uuid| asked.iter().map(of).collect::<Vec<_>>();
        let rows: Vec<StandingRow> = sql::query_as(SELECT)
            .bind(uuids(|asked| asked.client.as_uuid()))
            .bind(uuids(|asked| asked.token.as_uuid()))
            .bind(uuids(|asked| asked.resource.as_uuid()))
            .bind(at)
            .bind(account.as_uuid())
            .fetch_all(self.sql())
            .await?;
        Ok(standings(asked.len(), &rows))
    }
}
