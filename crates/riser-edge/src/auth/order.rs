//! The body of `POST /v1/tokens`: what token is wanted, and whether who asks may have it made.

use riser_core::filter::PathFilter;
use riser_core::frame::fields::{Fields, NotFields};
use riser_core::grant::{GRANTS, Grant, Identity, Peer, Verb};
use riser_core::id::{Address, Pattern};
use serde_json::value::RawValue;

use super::claims::{CLIENT, GATEWAY};
use super::is_subject;
use crate::problem::Problem;

/// Largest body of an order, in bytes. More could not become a token that is taken.
pub const ORDER_BYTES: usize = 16_384;
/// For how long a gateway's token is valid unless the order says otherwise, in seconds: a year.
pub const GATEWAY_TTL_DEFAULT_S: u64 = 365 * 86_400;
/// For how long a gateway's token may be valid, in seconds: ten years. Flats are not visited.
pub const GATEWAY_TTL_MAX_S: u64 = 10 * 365 * 86_400;
/// For how long a client's token is valid unless the order says otherwise, in seconds.
pub const CLIENT_TTL_DEFAULT_S: u64 = 900;
/// For how long a client's token may be valid, in seconds: 30 days. A client can get another at any time.
pub const CLIENT_TTL_MAX_S: u64 = 30 * 86_400;
/// How much of an unknown field's name is repeated to whoever sent it, in characters.
const NAME_SHOWN: usize = 48;

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOrder {
    /// Whom it is for.
    pub peer: Peer,
    /// A client's rights, 1 to 64; none for a gateway, whose rights follow from its address.
    pub grants: Vec<Grant>,
    /// For how long it is valid, in seconds, at least 1.
    pub ttl_s: u64,
}

impl TokenOrder {
    /// Reads the body of an order and checks that `minter` may make it: an API key, whose scope covers what the token
    /// would allow. A gateway's token needs every verb on its address.
    ///
    /// What a token ignores or leaves void is refused here by name, so that a mistake shows where it is made.
    pub fn parse(body: &[u8], minter: &Identity) -> Result<Self, Problem> {
        if minter.is_by_token() {
            return Err(Problem::forbidden("only an API key may make tokens"));
        }
        if body.len() > ORDER_BYTES {
            return Err(Problem::too_large(ORDER_BYTES));
        }
        let text = str::from_utf8(body).map_err(|_| Problem::bad_frame("the body is not UTF-8"))?;
        let fields = read_object(text)?;
        let peer: String = fields.required("peer").map_err(Problem::bad_frame)?;
        match peer.as_str() {
            GATEWAY => Self::parse_gateway(&fields, minter),
            CLIENT => Self::parse_client(&fields, minter),
            _ => Err(Problem::bad_frame("`peer`: neither `gateway` nor `client`")),
        }
    }

    fn parse_gateway(fields: &Fields<'_>, minter: &Identity) -> Result<Self, Problem> {
        only(fields, &["peer", "address", "ttl_s"])?;
        let address: Address = fields.required("address").map_err(Problem::bad_frame)?;
        if !address.is_gateway() {
            return Err(Problem::bad_frame("`address`: a building or a tenant is no gateway"));
        }
        let ttl_s = read_ttl(fields, GATEWAY_TTL_DEFAULT_S, GATEWAY_TTL_MAX_S)?;
        let to = Pattern::One(address.clone());
        if !Verb::USE.iter().all(|&verb| minter.allows(verb, &to, &PathFilter::ALL)) {
            return Err(Problem::forbidden("`address`: this key may not do everything there"));
        }
        Ok(Self { peer: Peer::Gateway { address }, grants: Vec::new(), ttl_s })
    }

    fn parse_client(fields: &Fields<'_>, minter: &Identity) -> Result<Self, Problem> {
        only(fields, &["peer", "subject", "grants", "ttl_s"])?;
        let subject: String = fields.required("subject").map_err(Problem::bad_frame)?;
        if !is_subject(&subject) {
            return Err(Problem::bad_frame("`subject`: not 1 to 128 bytes without control characters"));
        }
        let ttl_s = read_ttl(fields, CLIENT_TTL_DEFAULT_S, CLIENT_TTL_MAX_S)?;
        let list: Vec<&RawValue> = fields.required("grants").map_err(Problem::bad_frame)?;
        if !(1..=GRANTS).contains(&list.len()) {
            return Err(Problem::bad_frame(format!("`grants`: not 1 to {GRANTS} of them")));
        }
        let mut grants = Vec::with_capacity(list.len());
        for (index, raw) in list.into_iter().enumerate() {
            let grant =
                read_grant(raw.get()).map_err(|what| Problem::bad_frame(format!("`grants`[{index}]: {what}")))?;
            if !minter.grants.iter().any(|granted| granted.covers(&grant)) {
                return Err(Problem::forbidden(format!("`grants`[{index}]: no grant of this key covers it")));
            }
            grants.push(grant);
        }
        Ok(Self { peer: Peer::Client { subject }, grants, ttl_s })
    }
}

fn read_object(text: &str) -> Result<Fields<'_>, Problem> {
    Fields::parse(text).map_err(|what| {
        Problem::bad_frame(match what {
            NotFields::Malformed => "the body is not a JSON object",
            NotFields::Ambiguous(_) => "the body has a field twice, or too many fields",
        })
    })
}

/// Refuses fields that are not known: they may be meant to restrict what the token allows.
fn only(fields: &Fields<'_>, known: &[&str]) -> Result<(), Problem> {
    unknown(fields, known).map_or(Ok(()), |what| Err(Problem::bad_frame(what)))
}

fn unknown(fields: &Fields<'_>, known: &[&str]) -> Option<String> {
    let name = fields.names().find(|name| !known.contains(name))?;
    let shown: String = name.chars().take(NAME_SHOWN).collect();
    Some(format!("unknown field {shown:?}; known are {}", known.join(", ")))
}

fn read_ttl(fields: &Fields<'_>, default: u64, max: u64) -> Result<u64, Problem> {
    let ttl_s: u64 = fields.optional("ttl_s").map_err(Problem::bad_frame)?.unwrap_or(default);
    if (1..=max).contains(&ttl_s) {
        Ok(ttl_s)
    } else {
        Err(Problem::bad_frame(format!("`ttl_s`: not between 1 and {max}")))
    }
}

/// Reads a grant member by member, so that what is wrong is named. In a token
/// such a grant is only void.
fn read_grant(text: &str) -> Result<Grant, String> {
    let fields = Fields::parse(text).map_err(|_| "not an object with each member once".to_owned())?;
    if let Some(what) = unknown(&fields, &["to", "path", "may"]) {
        return Err(what);
    }
    // Left out means all paths. A `null` may be meant as none, and a right is never widened by a guess.
    if fields.names().any(|name| name == "path") && !fields.has("path") {
        return Err("`path` is null; leave it out to allow all paths".into());
    }
    let to: Pattern = fields.required("to")?;
    let path: PathFilter = fields.optional("path")?.unwrap_or_default();
    let mut may: Vec<Verb> = fields.required("may")?;
    may.sort_unstable();
    may.dedup();
    if may.is_empty() { Err("`may` is empty".into()) } else { Ok(Grant { to, path, may }) }
}
