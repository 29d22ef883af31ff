//! Tokens that are good no more although their time has not come.

use riser_core::Address;
use riser_core::frame::MAX_N;
use riser_core::grant::SUBJECT_BYTES;
use riser_core::tenant::TenantDoc;
use riser_core::tenant::revoked::{Full, JTI_BYTES};
use riser_ops::Refused;
use riser_ops::request::bad;
use serde_json::json;

use super::{Answer, Call, conflict, refused};
use crate::control::Control;

/// For how long a token that does not say when it ends is remembered, in milliseconds: as long as any is valid.
const LONGEST_MS: u64 = (10 * 365 + 1) * 86_400_000;

/// What is to be revoked.
#[derive(Clone)]
enum What {
    Token(String, u64),
    Subject(String),
    Gateway(Address),
}

pub(super) async fn list(control: &Control, call: &Call) -> Result<Answer, Refused> {
    let read = control.store.get(&call.tenant()?).await.map_err(refused)?;
    let revoked = &read.doc.tenant.revoked;
    let body = json!({ "tokens": revoked.tokens, "subjects": revoked.subjects, "gateways": revoked.gateways });
    Ok(Answer::ok(body).at(&read))
}

pub(super) async fn add(control: &Control, mut call: Call) -> Result<Answer, Refused> {
    let tenant = call.tenant()?;
    let now_ms = control.now_ms();
    let what = wanted(&mut call, now_ms)?;
    let change = |doc: &mut TenantDoc| {
        let revoked = &mut doc.tenant.revoked;
        revoked.forget(now_ms);
        let done = match what.clone() {
            What::Token(jti, until_ms) => revoked.token(jti, until_ms).map(|()| None),
            What::Subject(subject) => revoked.subject(subject, now_ms).map(Some),
            What::Gateway(address) => revoked.gateway(address, now_ms).map(Some),
        };
        done.map_err(|full: Full| Refused::new("conflict", conflict(full.to_string())))
    };
    let (before_ms, read) = control.change(&tenant, call.expected, change).await?;
    let (kind, name) = match &what {
        What::Token(jti, _) => ("token", jti.clone()),
        What::Subject(subject) => ("subject", subject.clone()),
        What::Gateway(address) => ("gateway", address.to_string()),
    };
    control.tell(&tenant, &call.caller, "revoke", json!({ kind: name })).await;
    let location = format!("/admin/v1/tenants/{tenant}/revocations");
    Ok(Answer::created(json!({ kind: name, "issued_before_ms": before_ms }), location).at(&read))
}

fn wanted(call: &mut Call, now_ms: u64) -> Result<What, Refused> {
    call.body.only(&["token", "until_ms", "subject", "gateway"])?;
    let (token, subject) = (call.body.take::<String>("token")?, call.body.take::<String>("subject")?);
    let (gateway, until) = (call.body.take::<String>("gateway")?, call.body.take::<u64>("until_ms")?);
    if until.is_some() && token.is_none() {
        return Err(bad("`until_ms`: goes with `token`"));
    }
    match (token, subject, gateway) {
        (Some(jti), None, None) => {
            if !(1..=JTI_BYTES).contains(&jti.len()) {
                return Err(bad(format!("`token`: not the id (`jti`) of a token, 1 to {JTI_BYTES} bytes")));
            }
            Ok(What::Token(jti, until.unwrap_or(now_ms.saturating_add(LONGEST_MS)).min(MAX_N)))
        }
        (None, Some(subject), None) if (1..=SUBJECT_BYTES).contains(&subject.len()) => Ok(What::Subject(subject)),
        (None, Some(_), None) => Err(bad(format!("`subject`: not 1 to {SUBJECT_BYTES} bytes"))),
        (None, None, Some(gateway)) => {
            let address: Address = gateway.parse().map_err(|error| bad(format!("`gateway`: {error}")))?;
            if address.is_gateway() { Ok(What::Gateway(address)) } else { Err(bad("`gateway`: this is no gateway")) }
        }
        _ => Err(bad("one of `token`, `subject` and `gateway` is needed, and only one")),
    }
}
