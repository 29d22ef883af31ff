//! What a tenant tries that wants to see, or change, what another one has.

use riser_core::Grant;
use riser_core::Peer;
use riser_edge::auth::{TokenOrder, mint};
use serde_json::json;

use super::acts::{Act, Given};
use super::pair::Finding;
use super::witness::call;

/// Asks for all that the other was given, under every name that might be taken for it. Of what is answered, nothing may be the
/// other's; each check of that is the witness' own.
pub(super) async fn asks(act: &mut Act<'_>, others: &Given) -> Result<(), Finding> {
    names(act).await?;
    commands(act, others).await?;
    streams(act, others).await?;
    paths(act, others).await?;
    tokens(act).await
}

/// Patterns and addresses that mean something to NATS, to Redis or to a file system.
async fn names(act: &mut Act<'_>) -> Result<(), Finding> {
    let other = act.pair.of[1 - act.whose].id.as_str();
    let hostile = [
        "*".to_owned(),
        ">".into(),
        "*/>".into(),
        "b1/f*".into(),
        "b*/f1".into(),
        "b1.f1".into(),
        format!("{other}/b1/f1"),
        format!("../{other}/b1"),
        format!("{{{other}/b1}}/f1"),
        format!("{other}.b1/f1"),
        "b1/f1\r\nSUB > 9".into(),
        "b1/f1\0".into(),
        "b1%2Ff1".into(),
    ];
    for to in hostile {
        act.client.refused(json!({"t":"subscribe","to":to,"lanes":["state","event","presence","live"]})).await?;
        let order = json!({"t":"command","to":to,"path":"hall/lock","action":"unlock","key":"one"});
        act.client.refused(order).await?;
        act.client.refused(json!({"t":"event","to":to,"id":"e1","type":"notice","data":{}})).await?;
        act.client.refused(json!({"t":"open","to":to,"path":"talk/down","kind":"opus"})).await?;
    }
    // A tenant in a frame is nobody's word: its own is used.
    act.client.ask(json!({"t":"subscribe","to":"b1/f1","lanes":["state"],"tenant":other})).await.map(drop)
}

/// The other's commands: their outcomes, their end, and another result.
async fn commands(act: &mut Act<'_>, others: &Given) -> Result<(), Finding> {
    for cmd in &others.cmds {
        act.client.refused(json!({"t":"cancel","cmd":cmd})).await?;
        let result = json!({"t":"result","cmd":cmd,"status":"failed","data":{"says":act.one().canary}});
        // Whatever the answer is: the other sees how its command ends.
        act.gateway.answer(result).await?;
    }
    Ok(())
}

/// The other's streams: their end, and frames in them.
async fn streams(act: &mut Act<'_>, others: &Given) -> Result<(), Finding> {
    act.client.refused(json!({"t":"close","stream":others.stream})).await?;
    let canary = act.one().canary.clone();
    act.client.say(others.stream, &canary).await?;
    act.gateway.say(others.stream, &canary).await
}

/// Paths of the HTTP API that lead to the other if anything does.
async fn paths(act: &mut Act<'_>, others: &Given) -> Result<(), Finding> {
    let other = act.pair.of[1 - act.whose].id.as_str();
    let mut asked: Vec<(&str, String)> = vec![];
    for cmd in &others.cmds {
        asked.push(("GET", format!("/v1/commands/{cmd}")));
    }
    let ways = [
        format!("..%2F{other}%2Fb1/f1"),
        format!("../{other}/b1/f1"),
        format!("{other}/b1/f1"),
        format!("%7B{other}%2Fb1%7D/f1"),
        "b1%2Ff1".into(),
        "%2A/%2A".into(),
        "*/*".into(),
        "%3E/%3E".into(),
        "b1/..%2f..%2f".into(),
        "b1/f1%00".into(),
        "b1/f1%0D%0ASUB".into(),
    ];
    for way in &ways {
        asked.push(("GET", format!("/v1/state/{way}")));
        asked.push(("POST", format!("/v1/events/{way}")));
        asked.push(("DELETE", format!("/v1/sessions/{way}")));
    }
    for query in ["building=*", "building=%3E", "building=b1%2Ff1"] {
        asked.push(("GET", format!("/v1/presence?{query}")));
    }
    asked.push(("GET", format!("/v1/presence?building={other}%2Fb1")));
    asked.push(("GET", format!("/v1/commands?to={other}/b1")));
    asked.push(("GET", format!("/v1/events?to={other}.*/*")));
    for (method, path) in asked {
        let body = if method == "POST" { r#"{"id":"e1","type":"ring","data":{}}"# } else { "" };
        let call = call((act.world, 1), (act.pair, act.whose), &act.one().key, (method, &path, body), act.until).await;
        let (status, body) = call?;
        // An address that is none is refused; one that could be the tenant's own has nothing there.
        let empty = path.starts_with("/v1/commands?") && body.contains(r#""commands":[]"#);
        if !(400..500).contains(&status) && !empty {
            return Err(Finding::Foreign(format!("{method} {path} was answered {status} {body}")));
        }
    }
    Ok(())
}

/// Tokens that say they are the other's, and are signed by who asks.
async fn tokens(act: &mut Act<'_>) -> Result<(), Finding> {
    let (own, other) = (act.one(), &act.pair.of[1 - act.whose]);
    let gateway = Peer::Gateway { address: "b1/f1".parse().expect("an address") };
    let orders = [(gateway, vec![]), (Peer::Client { subject: "alice".into() }, vec![Grant::everything()])];
    for (peer, grants) in orders {
        let order = TokenOrder { peer, grants, ttl_s: 3_600 };
        for (of, good) in [(own, true), (other, false)] {
            let minted = mint(&of.id, &own.tenant, &order, now_ms()).expect("a token");
            let asked = ("GET", "/v1/commands?to=b1/f1", "");
            let call = call((act.world, 0), (act.pair, act.whose), &minted.token, asked, act.until);
            match (call.await?, good) {
                ((401, _), false) => {}
                ((status, _), true) if status != 401 => {}
                (answer, _) => return Err(Finding::Foreign(format!("a token of {} is answered {answer:?}", of.id))),
            }
        }
    }
    Ok(())
}

/// The edges' clock is that of a server on this machine.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
