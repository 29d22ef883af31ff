//! Commands over HTTP.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use riser_core::command::{CommandId, Outcome, Record, Step};
use riser_core::frame::fields::Fields;
use riser_core::frame::{NewCommand, outbound};
use riser_core::limits::Limits;
use riser_core::{Address, ErrorCode, GatewayKey, Identity, Json, Pattern, Verb};
use riser_registry::commands::RECORDS_PAGE;
use tokio::time::{Duration, timeout};

use super::{Answer, ROWS_BYTES, bad, body, json, query, unavailable, unescaped};
use crate::commands::issuer::{self, Refused as NotIssued};
use crate::commands::step;
use crate::http::{Refused, Visitor};
use crate::problem::Problem;
use crate::shared::Shared;

/// Commands in one answer when the request does not say.
const PAGE: usize = 20;
/// The fields that the body of a `POST` may have.
const KNOWN: [&str; 8] = ["to", "path", "action", "args", "deadline_ms", "if_offline", "key", "wait"];
/// How long after its deadline a call waits for the final outcome: what is promised.
const AFTER_DEADLINE: Duration = Duration::from_secs(5);

/// `POST /v1/commands`.
pub(crate) async fn post(
    shared: &Arc<Shared>,
    identity: &Identity,
    request: Request<Incoming>,
    visitor: &Visitor,
    from: IpAddr,
) -> Answer {
    query(&request, &[])?;
    let bytes = body(shared, request, Limits::default().text_bytes).await?;
    let (to, command, wait) = parse(&bytes).map_err(bad)?;
    let key = GatewayKey::new(identity.tenant.clone(), to);
    let busy = || {
        let detail = "as many calls wait for outcomes as may; ask without `wait`, or come back";
        Refused::new("too_many_waits", Problem::unavailable(detail, 5))
    };
    let place = wait.then(|| shared.wait_place(&identity.tenant).ok_or_else(busy)).transpose()?;
    let stepped = issuer::record(shared, identity, Some(from), &key, command).await.map_err(refused)?;
    let record = stepped.record.clone();
    // The record's own: a command that is repeated keeps the first one's.
    let deadline = Duration::from_millis(record.deadline_at_ms.saturating_sub(stepped.now_ms));
    let waiting = place.map(|place| (shared.waiters.call(shared, &key, &stepped), place));
    issuer::set_going(shared, &key, stepped).await;
    let Some((outcomes, _place)) = waiting else {
        let text = Json::of(&serde_json::json!({ "cmd": record.cmd }));
        return Ok(json(StatusCode::ACCEPTED, text.as_str().to_owned()));
    };
    // Who waits for a gateway does not keep others from connecting, and goes when it is answered.
    visitor.leave_door();
    let Ok(Ok(outcomes)) = timeout(deadline + AFTER_DEADLINE, outcomes).await else { return Err(unavailable()) };
    let mut response = json(StatusCode::OK, whole(&record.cmd, &outcomes));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// `GET /v1/commands/{cmd}`.
pub(crate) async fn get(shared: &Arc<Shared>, identity: &Identity, request: &Request<Incoming>, cmd: &str) -> Answer {
    query(request, &[])?;
    let cmd: CommandId = cmd.parse().map_err(|error| bad(format!("path: {error}")))?;
    let key = GatewayKey::new(identity.tenant.clone(), cmd.of.clone());
    if !shows(identity, &cmd.of) {
        return Err(forbidden());
    }
    let found = step(shared, &key, &cmd, &Step::Look).await.map_err(|_| unavailable())?;
    let found = found.ok_or_else(|| {
        let detail = "there is no such command, or its deadline is more than an hour ago";
        Refused::new("unknown_command", Problem::not_found(detail))
    })?;
    if !shows_record(identity, &found.record) {
        return Err(forbidden());
    }
    Ok(json(StatusCode::OK, whole(&cmd, &found.record.outcomes)))
}

/// `GET /v1/commands?to=b12/f0304`.
pub(crate) async fn list(shared: &Arc<Shared>, identity: &Identity, request: &Request<Incoming>) -> Answer {
    let [to, cursor, limit] = query(request, &["to", "cursor", "limit"])?[..] else { return Err(bad("query")) };
    let to: Address =
        unescaped(to.ok_or_else(|| bad("`to` is missing"))?).parse().map_err(|error| bad(format!("`to`: {error}")))?;
    let before = cursor.map(|text| u64::from_str_radix(text, 16)).transpose();
    let before = before.map_err(|_| bad("`cursor`: not what an answer of this call gave"))?;
    let limit = match limit {
        Some(text) => text
            .parse()
            .ok()
            .filter(|n| (1..=RECORDS_PAGE).contains(n))
            .ok_or_else(|| bad(format!("`limit`: not an integer from 1 to {RECORDS_PAGE}")))?,
        None => PAGE,
    };
    if !shows(identity, &to) {
        return Err(forbidden());
    }
    let key = GatewayKey::new(identity.tenant.clone(), to);
    let records = shared.call(shared.ports.commands.latest(&key, before, limit)).await.map_err(|_| unavailable())?;
    let (mut shown, mut bytes, mut last) = (Vec::new(), 0, None);
    for record in &records {
        if bytes >= ROWS_BYTES {
            break;
        }
        last = Some(record.seq);
        if shows_record(identity, record) {
            let row = row(record);
            bytes += row.len();
            shown.push(row);
        }
    }
    let all = records.len() < limit && last == records.last().map(|record| record.seq);
    let next = last.filter(|_| !all).map(|seq| format!("{seq:x}"));
    let next = Json::of(&next);
    Ok(json(StatusCode::OK, format!("{{\"commands\":[{}],\"next\":{}}}", shown.join(","), next.as_str())))
}

/// Reads the body of a `POST`.
fn parse(bytes: &[u8]) -> Result<(Address, NewCommand, bool), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the body is not UTF-8")?;
    let fields = Fields::parse(text).map_err(|_| "the body is not a JSON object, or names a field twice")?;
    if let Some(name) = fields.names().find(|name| !KNOWN.contains(name)) {
        let name: String = name.chars().take(48).collect();
        return Err(format!("the field {name:?} is not known here; known are: {}", KNOWN.join(", ")));
    }
    let to: Address = fields.required("to")?;
    if !to.is_gateway() {
        return Err("`to`: a command goes to a gateway, not to a building or a tenant".into());
    }
    let wait = match fields.optional::<String>("wait")?.as_deref() {
        None => false,
        Some("final") => true,
        Some(_) => return Err("`wait`: it can be \"final\"".into()),
    };
    Ok((to, NewCommand::from_fields(&fields)?, wait))
}

fn shows(identity: &Identity, of: &Address) -> bool {
    let of = Pattern::One(of.clone());
    [Verb::Command, Verb::Read].into_iter().any(|verb| identity.paths(verb, &of).is_some())
}

fn shows_record(identity: &Identity, record: &Record) -> bool {
    [Verb::Command, Verb::Read].into_iter().any(|verb| identity.allows_path(verb, &record.cmd.of, &record.body.path))
}

fn forbidden() -> Refused {
    Refused::new("forbidden", Problem::forbidden("this credential does not show it"))
}

fn refused(refused: NotIssued) -> Refused {
    let NotIssued { code, message } = refused;
    let (reason, problem) = match code {
        ErrorCode::Forbidden => ("forbidden", Problem::forbidden(message)),
        ErrorCode::Conflict => ("conflict", Problem::new(StatusCode::CONFLICT, code, message)),
        ErrorCode::QueueFull => {
            ("queue_full", Problem::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(30))
        }
        ErrorCode::TooMany => ("too_many", Problem::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(5)),
        ErrorCode::Unavailable => ("registry_unavailable", Problem::unavailable(message, 2)),
        _ => ("internal", Problem::internal()),
    };
    Refused::new(reason, problem)
}

fn whole(cmd: &CommandId, outcomes: &[Outcome]) -> String {
    let list: Vec<String> = outcomes.iter().map(outbound::whole_outcome).collect();
    format!("{{\"cmd\":\"{cmd}\",\"of\":\"{}\",\"outcomes\":[{}]}}", cmd.of, list.join(","))
}

fn row(record: &Record) -> String {
    let list: Vec<String> = record.outcomes.iter().map(outbound::whole_outcome).collect();
    let head = serde_json::json!({
        "cmd": record.cmd,
        "of": record.cmd.of,
        "path": record.body.path,
        "action": record.body.action,
        "by": record.by,
        "at_ms": record.cmd.at_ms,
        "deadline_at_ms": record.deadline_at_ms,
    });
    let head = Json::of(&head);
    let open = head.as_str().trim_end_matches('}');
    format!("{open},\"outcomes\":[{}]}}", list.join(","))
}
