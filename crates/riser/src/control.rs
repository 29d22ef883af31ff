//! `riser tenant`, `key`, `quota` and `gateway`: what operators do over the control plane's admin API.

mod import;
mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use riser_client::{Admin, Said};
use riser_core::{BuildingId, TenantId};
use serde_json::{Map, Value, json};

use crate::cli::control::{Gateway, GatewayAct, Key, KeyAct, Plane, QuotaAct, QuotaArgs, Tenant, TenantAct};
use crate::clock;
use crate::exit::{self, Failure};
use table::{cell, table, time};

/// Rows that one call asks for.
const PAGE: usize = 1_000;

/// A control plane, and how to show what it says.
struct Desk {
    admin: Admin,
    json: bool,
}

impl Desk {
    fn new(plane: &Plane) -> Result<Self, Failure> {
        Ok(Self { admin: Admin::new(plane.url.clone(), plane.credential()?), json: plane.json })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Said, Failure> {
        Ok(self.admin.call(method, path, body, None).await?)
    }

    async fn get(&self, path: &str) -> Result<Said, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// All rows of a list.
    async fn all(&self, path: &str, rows: &str) -> Result<Vec<Value>, Failure> {
        let mut all = vec![];
        self.each_page(path, rows, |page| all.extend(page)).await?;
        Ok(all)
    }

    /// The rows of a list, page by page.
    async fn each_page(&self, path: &str, rows: &str, mut each: impl FnMut(Vec<Value>)) -> Result<(), Failure> {
        let mut cursor = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut page = self.get(&format!("{path}{joint}limit={PAGE}{cursor}")).await?.body;
            let Value::Array(some) = page[rows].take() else { break };
            each(some);
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        Ok(())
    }

    /// Shows JSON as it is, or else what `text` makes of it.
    fn show(&self, body: &Value, text: impl FnOnce(&Value) -> String) -> Result<ExitCode, Failure> {
        let text = if self.json { format!("{body}\n") } else { text(body) };
        exit::print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn run_on<F: Future<Output = Result<ExitCode, Failure>>>(future: F) -> Result<ExitCode, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

fn of(tenant: &TenantId) -> String {
    format!("/tenants/{tenant}")
}

/// Unix milliseconds, so long from now.
fn from_now(time: Duration) -> u64 {
    clock::now_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Runs `riser tenant`.
pub(crate) fn tenant(args: &Tenant) -> Result<ExitCode, Failure> {
    run_on(async {
        match &args.act {
            TenantAct::Create { tenant, origin, no_renewal, audit_commands, plane } => {
                let mut body = json!({ "tenant": tenant, "renewal": !no_renewal, "audit_commands": audit_commands });
                if !origin.is_empty() {
                    body["origins"] = json!(origin);
                }
                let desk = Desk::new(plane)?;
                let made = desk.ask(Method::POST, "/tenants", Some(&body)).await?.body;
                desk.show(&made, |_| format!("made {tenant}\n"))
            }
            TenantAct::List { plane } => {
                let desk = Desk::new(plane)?;
                let rows = desk.all("/tenants", "tenants").await?;
                desk.show(&json!({ "tenants": rows }), |_| {
                    let row = |row: &Value| {
                        ["tenant", "status", "api_keys", "signing_keys"].map(|name| cell(&row[name])).to_vec()
                    };
                    table(&["TENANT", "STATUS", "API KEYS", "SIGNING KEYS"], rows.iter().map(row))
                })
            }
            TenantAct::Show { tenant, plane } => show_tenant(&Desk::new(plane)?, tenant).await,
            TenantAct::Suspend { tenant, plane } => set_status(plane, tenant, "suspended").await,
            TenantAct::Resume { tenant, plane } => set_status(plane, tenant, "active").await,
            TenantAct::Delete { tenant, plane, .. } => {
                let desk = Desk::new(plane)?;
                let erased = desk.ask(Method::DELETE, &of(tenant), None).await?.body;
                desk.show(&erased, |erased| {
                    let mut text = format!("deleted {tenant}; erased:\n");
                    for name in ["gateways", "values", "commands", "events", "flats"] {
                        // Writing to a string cannot fail.
                        let _ = writeln!(text, "  {:>10} {name}", cell(&erased[name]));
                    }
                    text
                })
            }
        }
    })
}

async fn show_tenant(desk: &Desk, tenant: &TenantId) -> Result<ExitCode, Failure> {
    let mut shown = desk.get(&of(tenant)).await?.body;
    shown["usage"] = desk.get(&format!("{}/usage", of(tenant))).await?.body;
    desk.show(&shown, |shown| {
        let mut text = String::new();
        let mut rows = vec![];
        for (name, value) in shown.as_object().into_iter().flatten() {
            match value {
                Value::Object(fields) => {
                    rows.extend(fields.iter().map(|(key, value)| vec![format!("{name}.{key}"), cell(value)]));
                }
                value => rows.push(vec![name.clone(), cell(value)]),
            }
        }
        text.push_str(&table(&[], rows.into_iter()));
        text
    })
}

async fn set_status(plane: &Plane, tenant: &TenantId, status: &str) -> Result<ExitCode, Failure> {
    let desk = Desk::new(plane)?;
    let changed = desk.ask(Method::PATCH, &of(tenant), Some(&json!({ "status": status }))).await?.body;
    desk.show(&changed, |_| format!("{tenant} is {status}\n"))
}

/// Runs `riser key`.
pub(crate) fn key(args: &Key) -> Result<ExitCode, Failure> {
    run_on(async {
        match &args.act {
            KeyAct::Create { tenant, name, grants, ttl, from, plane } => {
                let mut body = json!({ "name": name, "scope": grants });
                if let Some(ttl) = ttl {
                    body["expires_at_ms"] = json!(from_now(*ttl));
                }
                if !from.is_empty() {
                    body["from"] = json!(from);
                }
                show_key(&Desk::new(plane)?, &format!("{}/keys", of(tenant)), &body).await
            }
            KeyAct::List { tenant, plane } => {
                let desk = Desk::new(plane)?;
                let keys = desk.get(&format!("{}/keys", of(tenant))).await?.body;
                desk.show(&keys, |keys| {
                    let rows = keys["keys"].as_array().into_iter().flatten();
                    table(&["ID", "NAME", "MADE", "ENDS", "LIVE", "RIGHTS"], rows.map(key_row))
                })
            }
            KeyAct::Rotate { tenant, id, old_ends, plane } => {
                let body = match old_ends {
                    Some(time) => json!({ "old_expires_at_ms": from_now(*time) }),
                    None => json!({}),
                };
                show_key(&Desk::new(plane)?, &format!("{}/keys/{id}/rotate", of(tenant)), &body).await
            }
            KeyAct::Revoke { tenant, id, plane } => {
                let desk = Desk::new(plane)?;
                let gone = desk.ask(Method::DELETE, &format!("{}/keys/{id}", of(tenant)), None).await?.body;
                desk.show(&gone, |gone| format!("revoked {} ({})\n", cell(&gone["id"]), cell(&gone["name"])))
            }
        }
    })
}

/// Has a key made and prints it alone, so that a script can take it; what it is called goes to standard error.
async fn show_key(desk: &Desk, path: &str, body: &Value) -> Result<ExitCode, Failure> {
    let made = desk.ask(Method::POST, path, Some(body)).await?.body;
    if !desk.json {
        exit::say(&format!("its id is {}; the key is shown this once", cell(&made["id"])));
    }
    desk.show(&made, |made| format!("{}\n", cell(&made["key"])))
}

fn key_row(key: &Value) -> Vec<String> {
    let rights = key["scope"].as_array().into_iter().flatten().map(|grant| {
        let may = grant["may"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        format!("{}:{may}", cell(&grant["to"]))
    });
    let rights = rights.collect::<Vec<_>>().join(" ");
    vec![
        cell(&key["id"]),
        cell(&key["name"]),
        time(&key["created_at_ms"]),
        time(&key["expires_at_ms"]),
        cell(&key["live"]),
        rights,
    ]
}

/// Runs `riser quota`.
pub(crate) fn quota(args: &QuotaArgs) -> Result<ExitCode, Failure> {
    let shown = |quotas: &Value| {
        let rows = quotas.as_object().into_iter().flatten().map(|(name, limit)| vec![name.clone(), cell(limit)]);
        if quotas.as_object().is_some_and(Map::is_empty) {
            "no limits\n".into()
        } else {
            table(&["QUOTA", "LIMIT"], rows)
        }
    };
    run_on(async {
        match &args.act {
            QuotaAct::Show { tenant, plane } => {
                let desk = Desk::new(plane)?;
                desk.show(&desk.get(&format!("{}/quotas", of(tenant))).await?.body, shown)
            }
            QuotaAct::Set { tenant, quotas, plane } => {
                let desk = Desk::new(plane)?;
                let path = format!("{}/quotas", of(tenant));
                let Said { mut body, tag } = desk.get(&path).await?;
                for (quota, limit) in quotas {
                    body[quota.name()] = json!(limit);
                }
                // Only onto what was read: somebody else's quotas are not set back.
                let set = desk.admin.call(Method::PUT, &path, Some(&body), tag.as_deref()).await?;
                desk.show(&set.body, shown)
            }
        }
    })
}

/// Runs `riser gateway`.
pub(crate) fn gateway(args: &Gateway) -> Result<ExitCode, Failure> {
    run_on(async {
        match &args.act {
            GatewayAct::List { tenant, building, token_ends_within: Some(days), plane } => {
                list_ending(&Desk::new(plane)?, tenant, building.as_ref(), *days).await
            }
            GatewayAct::List { tenant, building, token_ends_within: None, plane } => {
                let desk = Desk::new(plane)?;
                let only = building.as_ref().map(|building| format!("?building={building}")).unwrap_or_default();
                let rows = desk.all(&format!("{}/gateways{only}", of(tenant)), "gateways").await?;
                desk.show(&json!({ "gateways": rows }), |_| {
                    table(&["ADDRESS", "STATE", "SINCE", "EDGE", "REASON"], rows.iter().map(gateway_row))
                })
            }
            GatewayAct::Import { tenant, file, new_codes, code_ttl, qr, plane } => {
                let qr = qr.as_deref();
                let wish = import::Wish { tenant, file, new_codes: *new_codes, code_ttl: *code_ttl, qr };
                import::run(&Desk::new(plane)?, &wish).await
            }
            GatewayAct::Kick { tenant, address, plane } => {
                let desk = Desk::new(plane)?;
                let path = format!("{}/gateways/{address}/session", of(tenant));
                let kicked = desk.ask(Method::DELETE, &path, None).await?.body;
                desk.show(&kicked, |kicked| format!("told {} to close {address}\n", cell(&kicked["edge"])))
            }
        }
    })
}

/// Shows the flats whose gateways' tokens end within so many days, those that end first at the top.
async fn list_ending(
    desk: &Desk,
    tenant: &TenantId,
    building: Option<&BuildingId>,
    days: u64,
) -> Result<ExitCode, Failure> {
    let mut buildings: BTreeSet<String> = building.map(ToString::to_string).into_iter().collect();
    if building.is_none() {
        // Page by page: of the gateways of a large tenant only the buildings are kept.
        let building = |row: &Value| Some(row["of"].as_str()?.split_once('/')?.0.to_owned());
        let keep = |page: Vec<Value>| buildings.extend(page.iter().filter_map(building));
        desk.each_page(&format!("{}/gateways", of(tenant)), "gateways", keep).await?;
    }
    let mut rows = vec![];
    for building in buildings {
        let path = format!("{}/flats?building={building}&token_ends_within_days={days}", of(tenant));
        rows.extend(desk.all(&path, "flats").await?);
    }
    rows.sort_by_cached_key(|row| (row["token_expires_at_ms"].as_u64(), row["address"].as_str().map(str::to_owned)));
    desk.show(&json!({ "flats": rows }), |_| {
        let row = |row: &Value| vec![cell(&row["address"]), cell(&row["name"]), time(&row["token_expires_at_ms"])];
        table(&["ADDRESS", "NAME", "TOKEN ENDS"], rows.iter().map(row))
    })
}

fn gateway_row(row: &Value) -> Vec<String> {
    let state = if row["online"] == true { "online" } else { "offline" };
    vec![cell(&row["of"]), state.to_owned(), time(&row["since_ms"]), cell(&row["edge"]), cell(&row["reason"])]
}
