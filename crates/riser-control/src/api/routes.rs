//! Every route of the admin API, once: what is matched, and what its description says.

use riser_ops::openapi::schema::PART;
use riser_ops::openapi::{Kind, Param, Route, route};

use super::PAGE_MOST;

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// The description of the API.
    OpenApi,
    /// All tenants, page by page.
    ListTenants,
    /// Makes one.
    CreateTenant,
    /// One.
    ShowTenant,
    /// Changes some of its fields.
    ChangeTenant,
    /// Deletes it with all that it has.
    DeleteTenant,
    /// Its API keys.
    ListKeys,
    /// Makes one.
    CreateKey,
    /// Makes one to take the place of another.
    RotateKey,
    /// Takes one away.
    RevokeKey,
    /// Its signing keys.
    ListSigningKeys,
    /// Registers or makes one.
    CreateSigningKey,
    /// Takes one away.
    RemoveSigningKey,
    /// Its quotas.
    ShowQuotas,
    /// Sets all of them.
    SetQuotas,
    /// What was revoked.
    ListRevocations,
    /// Revokes tokens.
    Revoke,
    /// Its gateways and whether they are there.
    ListGateways,
    /// Ends the session of one.
    KickGateway,
    /// Registers flats, and makes codes for them.
    RegisterFlats,
    /// The flats that are registered.
    ListFlats,
    /// What it uses.
    ShowUsage,
}

const CURSOR: Param =
    Param { name: "cursor", about: "The `next` of the page before.", kind: Kind::Text, required: false };
const LIMIT: Param = Param {
    name: "limit",
    about: "Rows of a page, 1 to 1000; 100 without it.",
    kind: Kind::UpTo(PAGE_MOST as u64),
    required: false,
};
const BUILDING: Param =
    Param { name: "building", about: "Only this building.", kind: Kind::Matching(PART), required: false };
const OF_BUILDING: Param =
    Param { name: "building", about: "Which building.", kind: Kind::Matching(PART), required: true };
/// Most days within which tokens may be asked for that end: ten years, for which a gateway's token may be valid.
pub(super) const TOKEN_ENDS_DAYS: u64 = 3_650;
const TOKEN_ENDS: Param = Param {
    name: "token_ends_within_days",
    about: "Only flats whose gateways' tokens end within so many days, or have ended. Flats of which no token is known are \
            left out.",
    kind: Kind::UpTo(TOKEN_ENDS_DAYS),
    required: false,
};
const PAGED: &[Param] = &[CURSOR, LIMIT];

const TENANTS: &str = "/admin/v1/tenants";
const TENANT: &str = "/admin/v1/tenants/{tenant}";
const KEYS: &str = "/admin/v1/tenants/{tenant}/keys";
const SIGNING: &str = "/admin/v1/tenants/{tenant}/signing-keys";
const FLATS: &str = "/admin/v1/tenants/{tenant}/flats";
const QUOTAS: &str = "/admin/v1/tenants/{tenant}/quotas";
const REVOCATIONS: &str = "/admin/v1/tenants/{tenant}/revocations";

/// All of them.
pub static ROUTES: [Route<Op>; 22] = [
    route(Op::OpenApi, "openapi", "GET", "/admin/openapi.json", "This description.").gives(200, "OpenApi"),
    route(Op::ListTenants, "listTenants", "GET", TENANTS, "All tenants by name.")
        .query(PAGED)
        .gives(200, "TenantPage"),
    route(
        Op::CreateTenant,
        "createTenant",
        "POST",
        TENANTS,
        "Makes a tenant, with a signing key of its own. The name of one that was deleted is free.",
    )
    .body("NewTenant")
    .gives(201, "Tenant")
    .tagged(),
    route(Op::ShowTenant, "showTenant", "GET", TENANT, "One tenant.").gives(200, "Tenant").tagged(),
    route(
        Op::ChangeTenant,
        "changeTenant",
        "PATCH",
        TENANT,
        "Changes the fields that are given; null sets one back. A suspended tenant's sessions are closed within seconds.",
    )
    .body("TenantChange")
    .gives(200, "Tenant")
    .tagged(),
    route(
        Op::DeleteTenant,
        "deleteTenant",
        "DELETE",
        TENANT,
        "Deletes a tenant: its sessions are closed, and its events, state, presence, commands and credentials erased. \
         Deleting it once more erases what is left.",
    )
    .gives(200, "Erased"),
    route(Op::ListKeys, "listKeys", "GET", KEYS, "A tenant's API keys, without the keys themselves.")
        .gives(200, "Keys")
        .tagged(),
    route(Op::CreateKey, "createKey", "POST", KEYS, "Makes an API key, which is shown this once.")
        .body("NewKey")
        .gives(201, "ShownKey")
        .tagged(),
    route(
        Op::RotateKey,
        "rotateKey",
        "POST",
        "/admin/v1/tenants/{tenant}/keys/{key}/rotate",
        "Makes a key with the name and the rights of another, which goes on to work until it is revoked or the time that \
         is given is over. Two of a name are live at a time.",
    )
    .body("Rotation")
    .gives(201, "ShownKey")
    .tagged(),
    route(
        Op::RevokeKey,
        "revokeKey",
        "DELETE",
        "/admin/v1/tenants/{tenant}/keys/{key}",
        "Takes an API key away: its sessions are closed within seconds.",
    )
    .gives(200, "Key")
    .tagged(),
    route(Op::ListSigningKeys, "listSigningKeys", "GET", SIGNING, "The keys that tokens are verified with.")
        .gives(200, "SigningKeys")
        .tagged(),
    route(
        Op::CreateSigningKey,
        "createSigningKey",
        "POST",
        SIGNING,
        "Registers a tenant's own public key, or has a secret made (HS256 without `secret`).",
    )
    .body("NewSigningKey")
    .gives(201, "SigningKey")
    .tagged(),
    route(
        Op::RemoveSigningKey,
        "removeSigningKey",
        "DELETE",
        "/admin/v1/tenants/{tenant}/signing-keys/{kid}",
        "Takes a signing key away, and with it every token that it signed.",
    )
    .gives(200, "SigningKeys")
    .tagged(),
    route(Op::ShowQuotas, "showQuotas", "GET", QUOTAS, "What a tenant may use.").gives(200, "Quotas").tagged(),
    route(
        Op::SetQuotas,
        "setQuotas",
        "PUT",
        QUOTAS,
        "Sets all quotas of a tenant: what is left out has no limit.",
    )
    .body("Quotas")
    .gives(200, "Quotas")
    .tagged(),
    route(Op::ListRevocations, "listRevocations", "GET", REVOCATIONS, "What was revoked.")
        .gives(200, "Revocations")
        .tagged(),
    route(
        Op::Revoke,
        "revoke",
        "POST",
        REVOCATIONS,
        "Revokes one token by its id, or all tokens of a subject or a gateway that were issued until now. Their sessions \
         are closed within seconds.",
    )
    .body("Revocation")
    .gives(201, "Revoked")
    .tagged(),
    route(
        Op::ListGateways,
        "listGateways",
        "GET",
        "/admin/v1/tenants/{tenant}/gateways",
        "A tenant's gateways by address, and whether they are there.",
    )
    .query(&[BUILDING, CURSOR, LIMIT])
    .gives(200, "GatewayPage"),
    route(
        Op::KickGateway,
        "kickGateway",
        "DELETE",
        "/admin/v1/tenants/{tenant}/gateways/{building}/{gateway}/session",
        "Closes a gateway's session. It may come back.",
    )
    .gives(200, "Kicked"),
    route(
        Op::RegisterFlats,
        "registerFlats",
        "POST",
        FLATS,
        "Registers flats and makes the codes that their gateways are enrolled with, which are shown this once. The same flats \
         again change nothing but what is said about them.",
    )
    .body("NewFlats")
    .gives(200, "RegisteredFlats"),
    route(Op::ListFlats, "listFlats", "GET", FLATS, "The flats of a building that are registered.")
        .query(&[OF_BUILDING, CURSOR, LIMIT, TOKEN_ENDS])
        .gives(200, "FlatPage"),
    route(Op::ShowUsage, "showUsage", "GET", "/admin/v1/tenants/{tenant}/usage", "What a tenant uses.")
        .gives(200, "Usage"),
];
