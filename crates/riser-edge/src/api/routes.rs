//! Every route of the HTTP API, once: what is matched, and what its description says.

use riser_bus::log::LOG_PAGE;
use riser_ops::openapi::schema::{ADDRESSES, GATEWAY, PART};
use riser_ops::openapi::{About, Kind, Param, Route, describe, route};
use riser_registry::PRESENCE_PAGE;
use riser_registry::commands::RECORDS_PAGE;
use serde_json::Value;

use super::schema::schemas;

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    OpenApi,
    Enrol,
    Tokens,
    PostCommand,
    ListCommands,
    ShowCommand,
    ShowState,
    ListPresence,
    PostEvent,
    ListEvents,
    Kick,
    Erase,
}

const fn param(name: &'static str, about: &'static str) -> Param {
    Param { name, about, kind: Kind::Text, required: false }
}

const fn needed(name: &'static str, about: &'static str, pattern: &'static str) -> Param {
    Param { name, about, kind: Kind::Matching(pattern), required: true }
}

const fn limit(most: usize) -> Param {
    Param { kind: Kind::UpTo(most as u64), ..param("limit", "Rows in the answer, at most.") }
}

const CURSOR: Param = param("cursor", "What an answer of this call gave, to go on from there.");

/// What every call may be answered with: something is wrong with it, no good credential, not allowed, too fast, not now.
const ALWAYS: [u16; 6] = [400, 401, 403, 429, 500, 503];
/// The same of a call without a credential.
const OPEN: [u16; 7] = [400, 403, 404, 413, 429, 500, 503];
/// [`ALWAYS`], and there is nothing of this name.
const OF_ONE: [u16; 7] = [400, 401, 403, 404, 429, 500, 503];
/// [`ALWAYS`], and there is a body, which may be too large.
const WITH_BODY: [u16; 7] = [400, 401, 403, 413, 429, 500, 503];
/// [`WITH_BODY`], and it may contradict what came before.
const WITH_CONFLICT: [u16; 8] = [400, 401, 403, 409, 413, 429, 500, 503];
/// [`OF_ONE`], and it may be full.
const OF_ONE_OR_FULL: [u16; 8] = [400, 401, 403, 404, 409, 429, 500, 503];

/// All of them.
pub(crate) static ROUTES: [Route<Op>; 12] = [
    route(Op::OpenApi, "openapi", "GET", "/openapi.json", "This description.")
        .gives(200, "OpenApi")
        .refuses(&[400, 403, 503])
        .open(),
    route(
        Op::Enrol,
        "enrol",
        "POST",
        "/v1/enrol",
        "Uses up a one-time code, which is the credential, and gives the gateway of its flat a token.",
    )
    .body("Enrolment")
    .gives(201, "Enrolled")
    .refuses(&OPEN)
    .open(),
    route(
        Op::Tokens,
        "createToken",
        "POST",
        "/v1/tokens",
        "Makes a token for a gateway or a client. It can allow no more than the API key that asks.",
    )
    .body("NewToken")
    .gives(201, "Token")
    .refuses(&WITH_BODY),
    route(
        Op::PostCommand,
        "sendCommand",
        "POST",
        "/v1/commands",
        "Sends a command to a gateway. It is recorded before the answer; with `wait` the answer comes with its final outcome.",
    )
    .body("NewCommand")
    .gives(202, "Accepted")
    .or(200, "Command")
    .refuses(&WITH_CONFLICT),
    route(
        Op::ListCommands,
        "listCommands",
        "GET",
        "/v1/commands",
        "The latest commands of an address with their outcomes, the newest first.",
    )
    .query(&[needed("to", "A gateway: building/gateway.", GATEWAY), CURSOR, limit(RECORDS_PAGE)])
    .gives(200, "CommandPage")
    .refuses(&ALWAYS),
    route(
        Op::ShowCommand,
        "showCommand",
        "GET",
        "/v1/commands/{cmd}",
        "A command's outcomes, until an hour after its deadline.",
    )
    .gives(200, "Command")
    .refuses(&OF_ONE),
    route(
        Op::ShowState,
        "showState",
        "GET",
        "/v1/state/{building}/{gateway}",
        "What a gateway's values are, as far as the credential shows them.",
    )
    .gives(200, "Snapshot")
    .refuses(&OF_ONE),
    route(
        Op::ListPresence,
        "listPresence",
        "GET",
        "/v1/presence",
        "The gateways of a building by name, connected or not, and flats that are registered and never were.",
    )
    .query(&[
        needed("building", "Which building.", PART),
        Param { kind: Kind::Matching(PART), ..param("next", "The `next` of the page before.") },
        limit(PRESENCE_PAGE),
    ])
    .gives(200, "PresencePage")
    .refuses(&ALWAYS),
    route(
        Op::PostEvent,
        "sendEvent",
        "POST",
        "/v1/events/{building}/{gateway}",
        "Stores an event before it is answered. The gateway `_` stands for the whole building.",
    )
    .body("NewEvent")
    .gives(201, "Stored")
    .refuses(&WITH_BODY),
    route(
        Op::ListEvents,
        "listEvents",
        "GET",
        "/v1/events",
        "Stored events in their order. An answer may be empty before the end: go on while its cursor moves.",
    )
    .query(&[
        needed("to", "building/gateway, building/* or */*.", ADDRESSES),
        param("cursor", "After what: the cursor of an answer or an event. From the oldest event without it."),
        limit(LOG_PAGE),
    ])
    .gives(200, "EventPage")
    .refuses(&ALWAYS),
    route(
        Op::Kick,
        "closeSession",
        "DELETE",
        "/v1/sessions/{building}/{gateway}",
        "Closes a gateway's session. It may come back.",
    )
    .gives(200, "Kicked")
    .refuses(&OF_ONE),
    route(
        Op::Erase,
        "eraseGateway",
        "DELETE",
        "/v1/gateways/{building}/{gateway}",
        "Erases all that is known of a flat's gateway and revokes its tokens: somebody moves out.",
    )
    .gives(200, "Erased")
    .refuses(&OF_ONE_OR_FULL),
];

/// OpenAPI 3.1 of the HTTP API.
pub fn openapi() -> Value {
    let about = About {
        title: "Riser HTTP API",
        text: "For a tenant's own back end, with an API key. Gateways and clients use the WebSocket at /v1/ws.",
    };
    describe(about, &ROUTES, schemas())
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use riser_ops::openapi::find;

    use super::*;

    #[test]
    fn a_path_is_its_route_and_nothing_near_it() {
        let found = |method: Method, path: &str| find(&ROUTES, &method, path).map(|(route, values)| (route.op, values));
        let key = found(Method::POST, "/v1/events/b1/f2").expect("a route");
        assert_eq!(key, (Op::PostEvent, vec!["b1".to_owned(), "f2".to_owned()]));
        for path in
            ["/", "/v1", "/v1/events/b1", "/v1/events/b1/", "/v1/commands/", "//v1/commands", "/v2/commands", "/V1/ws"]
        {
            let refused = found(Method::GET, path).expect_err(path);
            assert_eq!(refused.problem().status, StatusCode::NOT_FOUND, "{path}");
        }
        let refused = found(Method::PUT, "/v1/commands").expect_err("another method").into_response();
        assert_eq!(refused.headers()["allow"], "POST, GET");
    }

    #[test]
    fn the_description_is_whole() {
        assert_eq!(riser_ops::openapi::faults(&openapi(), &ROUTES), [""; 0]);
    }
}
