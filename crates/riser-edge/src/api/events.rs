//! Events over HTTP.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use riser_bus::log::{LOG_PAGE, LogError, Page};
use riser_core::event::Cursor;
use riser_core::frame::fields::Fields;
use riser_core::frame::{NewEvent, outbound};
use riser_core::limits::Limits;
use riser_core::{Address, ErrorCode, Identity, Json, PathFilter, Pattern, TenantId, Verb};
use tokio::time::{Instant, timeout};

use super::{Answer, ROWS_BYTES, bad, body, json, query, unescaped};
use crate::events::audit::{is_audit, may_audit};
use crate::events::{NotStored, event_of, may_send, store};
use crate::http::Refused;
use crate::problem::Problem;
use crate::shared::Shared;

/// Events in one answer when the request does not say.
const LIMIT: usize = 100;
/// Pages of the store that one call goes through: a call that wants few events of many must not read all of them. Its
/// answer says from where to go on.
const PAGES: usize = 8;
/// The fields that the body of a `POST` may have.
const KNOWN: [&str; 5] = ["id", "path", "type", "data", "ts_ms"];

fn unavailable() -> Refused {
    Refused::new("events_unavailable", Problem::unavailable("the event store does not answer", 2))
}

fn forbidden(text: &str) -> Refused {
    Refused::new("forbidden", Problem::forbidden(text))
}

/// `POST /v1/events/{building}/{gateway}`.
pub(crate) async fn post(
    shared: &Arc<Shared>,
    identity: &Identity,
    request: Request<Incoming>,
    building: &str,
    gateway: &str,
) -> Answer {
    query(&request, &[])?;
    let of: Address = format!("{building}/{gateway}").parse().map_err(|error| bad(format!("path: {error}")))?;
    let bytes = body(shared, request, Limits::default().text_bytes).await?;
    let new = parse(&bytes).map_err(bad)?;
    if !may_send(identity, &of, &new) {
        shared.metrics.events.stored("forbidden");
        return Err(forbidden(
            "no grant of this credential covers the address and the path; or `type`: audit is the broker's own",
        ));
    }
    let stored = store(shared, &identity.tenant, event_of(shared, identity, of, new), Instant::now()).await;
    let cursor = stored.map_err(|NotStored { code, message }| match code {
        ErrorCode::Unavailable => Refused::new("events_unavailable", Problem::unavailable(message, 2)),
        _ => Refused::new("internal", Problem::internal()),
    })?;
    let text = Json::of(&serde_json::json!({ "cursor": cursor }));
    Ok(json(StatusCode::CREATED, text.as_str().to_owned()))
}

fn parse(bytes: &[u8]) -> Result<NewEvent, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the body is not UTF-8")?;
    let fields = Fields::parse(text).map_err(|_| "the body is not a JSON object, or names a field twice")?;
    if let Some(name) = fields.names().find(|name| !KNOWN.contains(name)) {
        let name: String = name.chars().take(48).collect();
        return Err(format!("the field {name:?} is not known here; known are: {}", KNOWN.join(", ")));
    }
    NewEvent::from_fields(&fields)
}

/// `GET /v1/events?to=b12/*&cursor=…&limit=…`.
pub(crate) async fn list(shared: &Arc<Shared>, identity: &Identity, request: &Request<Incoming>) -> Answer {
    let [to, cursor, limit] = query(request, &["to", "cursor", "limit"])?[..] else { return Err(bad("query")) };
    let to: Pattern =
        unescaped(to.ok_or_else(|| bad("`to` is missing"))?).parse().map_err(|error| bad(format!("`to`: {error}")))?;
    let limit = match limit {
        Some(text) => text
            .parse()
            .ok()
            .filter(|n| (1..=LOG_PAGE).contains(n))
            .ok_or_else(|| bad(format!("`limit`: not an integer from 1 to {LOG_PAGE}")))?,
        None => LIMIT,
    };
    let shown = identity.paths(Verb::Read, &to).ok_or_else(|| forbidden("this credential does not show it"))?;
    let found = find(shared, identity, &to, &shown, cursor, limit).await.map_err(|_| unavailable())?;
    let Found { events, cursor, gap } = found;
    let cursor = Json::of(&cursor);
    Ok(json(
        StatusCode::OK,
        format!("{{\"events\":[{}],\"cursor\":{},\"gap\":{gap}}}", events.join(","), cursor.as_str()),
    ))
}

struct Found {
    events: Vec<String>,
    /// From where to go on.
    cursor: Cursor,
    gap: bool,
}

async fn find(
    shared: &Shared,
    identity: &Identity,
    to: &Pattern,
    shown: &PathFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Found, LogError> {
    let (tenant, audits) = (&identity.tenant, may_audit(identity));
    let asked = cursor.map(|text| text.parse::<Cursor>().ok());
    let mut page = read(shared, tenant, asked.flatten().map_or(1, |cursor| cursor.seq.saturating_add(1))).await?;
    let known = match asked {
        None => true,
        Some(None) => false,
        Some(Some(cursor)) => {
            let life = cursor.life == page.bounds.life || cursor == Cursor::START;
            life && cursor.seq <= page.bounds.last && cursor.seq + 1 >= page.bounds.first
        }
    };
    let mut at = asked.flatten().map_or(0, |cursor| cursor.seq);
    if !known {
        page = read(shared, tenant, 1).await?;
    }
    if !known || asked.is_none() {
        at = page.bounds.first - 1;
    }
    let life = page.bounds.life;
    let (mut events, mut bytes) = (Vec::new(), 0);
    let full = |count: usize, bytes: usize| count == limit || bytes >= ROWS_BYTES;
    for _ in 0..PAGES {
        for stored in &page.events {
            if full(events.len(), bytes) {
                break;
            }
            at = stored.seq;
            let event = &stored.event;
            if (is_audit(event) && !audits) || !to.matches(&event.of) {
                continue;
            }
            if event.path.as_ref().is_none_or(|path| shown.matches(path)) {
                let row = outbound::whole_event(Cursor { life, seq: at }, event);
                bytes += row.len();
                events.push(row);
            }
        }
        if full(events.len(), bytes) || at >= page.bounds.last {
            break;
        }
        page = read(shared, tenant, at + 1).await?;
        // What retention took between the two reads the next call finds missing, and says so.
        if page.bounds.life != life || page.bounds.first > at + 1 || page.events.is_empty() {
            break;
        }
    }
    Ok(Found { events, cursor: Cursor { life, seq: at }, gap: !known })
}

async fn read(shared: &Shared, tenant: &TenantId, from: u64) -> Result<Page, LogError> {
    shared.metrics.events.answered(timeout(shared.config.call, shared.ports.log.read(tenant, from)).await)
}
