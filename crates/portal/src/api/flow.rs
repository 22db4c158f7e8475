//! The flow log: pages of it, all of it, how long it is kept and where it is sent.

use axum::Json;
use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use super::{Admin, Body, Failure, Listed, Params, listed};
use crate::flow_log::{check_authorization, check_url, json_lines};
use crate::portal::{Portal, SharedPortal};
use crate::store::{FlowFilter, FlowRow, FlowSetting, Page};

/// Flows that are read at a time for an export.
const BATCH: i64 = 500;

/// Lists flows, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/flows",
    tag = "flows",
    params(Page, FlowFilter),
    responses((status = 200, description = "Here it is", body = Listed<FlowRow>)),
    security(("token" = ["flows:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
    Params(filter): Params<FlowFilter>,
) -> Result<Json<Listed<FlowRow>>, Failure> {
    Ok(listed(page, portal.store.flows(page, &filter).await?, |row| row.id))
}

/// Where an export begins.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// Reports with larger numbers; all of them when absent.
    #[serde(default)]
    after_seq: i64,
    /// Flows that were open at this time or later, in Unix milliseconds.
    since_ms: Option<i64>,
}

/// Every flow as a line of JSON, by its last report, the oldest first. Whoever comes back asks for what follows the last
/// number that it has, and gets flows again that were reported again.
#[utoipa::path(
    get,
    path = "/api/v1/flows/export",
    tag = "flows",
    params(From),
    responses((status = 200, description = "Here it is", body = String, content_type = "application/x-ndjson")),
    security(("token" = ["flows:read"])),
)]
pub(super) async fn export(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(from): Params<From>,
) -> Response {
    let since_ms = from.since_ms.unwrap_or(i64::MIN);
    let lines = stream::try_unfold((portal, from.after_seq), move |(portal, after)| async move {
        let rows = portal.store.flows_in_order(after, since_ms, BATCH).await;
        let rows = rows.map_err(std::io::Error::other)?;
        let Some(last) = rows.last().map(|row| row.seq) else { return Ok::<_, std::io::Error>(None) };
        Ok(Some((json_lines(&rows)?, (portal, last))))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], ResponseBody::from_stream(lines)).into_response()
}

/// Shows how the flow log is kept.
#[utoipa::path(
    get,
    path = "/api/v1/flows/settings",
    tag = "flows",
    responses((status = 200, description = "Here it is", body = FlowSetting)),
    security(("token" = ["flows:read"])),
)]
pub(super) async fn setting(
    State(portal): State<SharedPortal>,
    _: Admin,
) -> Result<Json<FlowSetting>, Failure> {
    Ok(Json(portal.store.flow_setting().await?))
}

/// Changes how the flow log is kept. Gateways and clients hear at once of a log that was switched on or off.
#[utoipa::path(
    put,
    path = "/api/v1/flows/settings",
    tag = "flows",
    request_body = FlowSetting,
    responses((status = 200, description = "Changed", body = FlowSetting)),
    security(("token" = ["flows:write"])),
)]
pub(super) async fn set(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(wanted): Body<FlowSetting>,
) -> Result<Json<FlowSetting>, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.set_flow_setting(wanted).await?;
    change.commit().await?;
    Ok(Json(wanted))
}

/// Where flows are sent besides.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sink {
    /// The address; nowhere when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Whether a secret is sent along.
    has_authorization: bool,
    /// The number of the last report that was taken there.
    seq: i64,
    /// When something was taken there last, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_ms: Option<i64>,
    /// Why the last attempt failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Where flows are to be sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedSink {
    /// `https://HOST/PATH`, or `http:` without a secret.
    #[schema(example = "https://logs.example/adit")]
    pub(crate) url: String,
    /// The value of the `Authorization` header, such as `Bearer …`; it is kept encrypted and never shown.
    pub(crate) authorization: Option<String>,
}

impl WantedSink {
    /// The address and the sealed secret, if they may be used.
    pub(crate) fn checked(&self, portal: &Portal) -> Result<(Url, Option<String>), Failure> {
        let url = check_url(&self.url)?;
        if let Some(value) = &self.authorization {
            check_authorization(&url, value)?;
        }
        let sealed = self.authorization.as_deref().map(|value| portal.secrets.seal(value)).transpose()?;
        Ok((url, sealed))
    }
}

/// Shows where flows are sent.
#[utoipa::path(
    get,
    path = "/api/v1/flows/sink",
    tag = "flows",
    responses((status = 200, description = "Here it is", body = Sink)),
    security(("token" = ["flows:read"])),
)]
pub(super) async fn sink(State(portal): State<SharedPortal>, _: Admin) -> Result<Json<Sink>, Failure> {
    let sink = portal.store.flow_sink().await?;
    Ok(Json(match sink {
        Some(sink) => Sink {
            url: sink.sink_url,
            has_authorization: sink.sink_sealed.is_some(),
            seq: sink.sink_seq,
            at_ms: sink.sink_at_ms,
            error: sink.sink_error,
        },
        None => Sink { url: None, has_authorization: false, seq: 0, at_ms: None, error: None },
    }))
}

/// Sends flows that are reported from now on to an address, as JSON Lines in POST requests. Only owners do so, for what
/// people reach leaves the portal.
#[utoipa::path(
    put,
    path = "/api/v1/flows/sink",
    tag = "flows",
    request_body = WantedSink,
    responses((status = 200, description = "Changed", body = Sink)),
    security(("token" = ["flows:write"])),
)]
pub(super) async fn set_sink(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(wanted): Body<WantedSink>,
) -> Result<Json<Sink>, Failure> {
    admin.owns()?;
    let (url, sealed) = wanted.checked(&portal)?;
    let mut change = portal.store.change(&admin.by).await?;
    change.set_flow_sink(Some(url.as_str()), sealed).await?;
    change.commit().await?;
    sink(State(portal), admin).await
}

/// Sends flows nowhere any more.
#[utoipa::path(
    delete,
    path = "/api/v1/flows/sink",
    tag = "flows",
    responses((status = 204, description = "Done")),
    security(("token" = ["flows:write"])),
)]
pub(super) async fn remove_sink(
    State(portal): State<SharedPortal>,
    admin: Admin,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.set_flow_sink(None, None).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
