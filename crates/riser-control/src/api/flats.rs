//! Flats that are registered, and the codes that their gateways are enrolled with.

use riser_core::{Address, BuildingId, GatewayId};
use riser_ops::request::bad;
use riser_ops::{Problem, Refused};
use riser_tenants::FlatsError;
use riser_tenants::flats::{CODE_MS_MAX, Codes, FLATS_AT_ONCE, Flat, NAME_BYTES, NewFlat, is_about};
use serde_json::{Map, Value, json};

use super::routes::TOKEN_ENDS_DAYS;
use super::{Answer, Call, conflict, refused, unavailable};
use crate::control::Control;

/// For how long a code is good unless the request says, in milliseconds: 30 days.
const CODE_MS: u64 = 30 * DAY_MS;
/// A day in milliseconds.
const DAY_MS: u64 = 86_400_000;

pub(super) async fn register(control: &Control, mut call: Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    call.body.only(&["flats", "codes", "code_ttl_ms"])?;
    let rows: Vec<Value> = call.body.take("flats")?.ok_or_else(|| bad("`flats`: is missing"))?;
    if rows.len() > FLATS_AT_ONCE {
        return Err(bad(format!("`flats`: not a list of at most {FLATS_AT_ONCE}")));
    }
    let codes = match call.body.take::<String>("codes")?.as_deref() {
        None | Some("missing") => Codes::Missing,
        Some("all") => Codes::All,
        Some(_) => return Err(bad("`codes`: neither `missing` nor `all`")),
    };
    let ttl: u64 = call.body.take("code_ttl_ms")?.unwrap_or(CODE_MS);
    if !(1..=CODE_MS_MAX).contains(&ttl) {
        return Err(bad(format!("`code_ttl_ms`: not a whole number from 1 to {CODE_MS_MAX}")));
    }
    let flats = rows.into_iter().enumerate().map(|(at, row)| new(at, row)).collect::<Result<Vec<_>, _>>()?;
    control.store.get(&tenant).await.map_err(refused)?;
    let now_ms = control.now_ms();
    let until_ms = now_ms.saturating_add(ttl);
    let done = control.store.flats().register(&tenant, &flats, codes, now_ms, until_ms).await.map_err(not_done)?;
    let made = done.iter().filter(|flat| flat.code.is_some()).count();
    control.tell(&tenant, &call.caller, "flats.register", json!({ "flats": done.len(), "codes": made })).await;
    let rows: Vec<Value> =
        done.into_iter().map(|flat| json!({ "address": flat.address, "new": flat.new, "code": flat.code })).collect();
    Ok(Answer::ok(json!({ "flats": rows, "codes_until_ms": until_ms })))
}

fn new(at: usize, row: Value) -> Result<NewFlat, Refused> {
    let wrong = |what: &str| bad(format!("`flats[{at}]`: {what}"));
    let Value::Object(mut fields) = row else { return Err(wrong("not an object")) };
    let text = |fields: &mut Map<String, Value>, name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("`{name}` is not a text"))),
    };
    let address = text(&mut fields, "address")?.ok_or_else(|| wrong("`address` is missing"))?;
    let address: Address = address.parse().map_err(|error| wrong(&format!("`address`: {error}")))?;
    if !address.is_gateway() {
        return Err(wrong("`address`: a building or a tenant is no flat"));
    }
    let about = [text(&mut fields, "name")?, text(&mut fields, "floor")?, text(&mut fields, "note")?];
    if about.iter().flatten().any(|text| !is_about(text)) {
        return Err(wrong(&format!("a name, floor or note has at most {NAME_BYTES} bytes and no control characters")));
    }
    if let Some(name) = fields.keys().next() {
        let shown: String = name.chars().take(48).collect();
        return Err(wrong(&format!("unknown field {shown:?}; known are address, name, floor, note")));
    }
    Ok(NewFlat { address, about })
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let building = call.asked(0).ok_or_else(|| bad("`building`: is missing"))?;
    let building: BuildingId = building.parse().map_err(|error| bad(format!("`building`: {error}")))?;
    let limit = call.limit(2)?;
    let ends_within = call.asked(3).map(days).transpose()?;
    control.store.get(&tenant).await.map_err(refused)?;
    let now_ms = control.now_ms();
    let until_ms = ends_within.map(|days| now_ms.saturating_add(days * DAY_MS));
    let is_asked = |flat: &Flat| until_ms.is_none_or(|until_ms| flat.token_ends_until(until_ms));
    let all = control.store.flats().building(&tenant, &building).await.map_err(not_done)?;
    let after = call.asked(1);
    let is_left = |gateway: &GatewayId| after.is_none_or(|after| gateway.as_str() > after);
    let mut rest = all.into_iter().filter(|(gateway, flat)| is_left(gateway) && is_asked(flat));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| page.last().map(|(gateway, _)| gateway.to_string()));
    let row = |(gateway, flat): &(GatewayId, Flat)| {
        json!({
            "address": format!("{building}/{gateway}"),
            "name": flat.name,
            "floor": flat.floor,
            "note": flat.note,
            "enrolled_at_ms": flat.enrolled_at_ms,
            "code_waits": flat.has_code(now_ms),
            "token_expires_at_ms": flat.token_expires_at_ms,
        })
    };
    Ok(Answer::ok(json!({ "flats": page.iter().map(row).collect::<Vec<_>>(), "next": next })))
}

/// Within how many days from now tokens are to end.
fn days(text: &str) -> Result<u64, Refused> {
    let number = text.parse().ok().filter(|number| (1..=TOKEN_ENDS_DAYS).contains(number));
    number.ok_or_else(|| bad(format!("`token_ends_within_days`: not a whole number from 1 to {TOKEN_ENDS_DAYS}")))
}

fn not_done(error: FlatsError) -> Refused {
    let text = error.to_string();
    match error {
        FlatsError::Unavailable | FlatsError::BadCode => unavailable(&text),
        FlatsError::Busy | FlatsError::TooMany => Refused::new("conflict", conflict(text)),
        FlatsError::Unreadable | FlatsError::NoRandomness => {
            tracing::error!(%error, "cannot register flats");
            Refused::new("unreadable", Problem::internal())
        }
    }
}
