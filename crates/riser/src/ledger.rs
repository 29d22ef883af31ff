//! `riser ledger`: what became of a tenant's commands, for whoever has an edge's configuration.

use std::process::ExitCode;

use riser_bus::nats::{LedgerEntry, LedgerFrom};
use riser_ops::visible;
use riser_ops::visible::json_line;
use serde_json::{Value, json};

use crate::cli::Ledger;
use crate::edge::{self, connect};
use crate::exit::{self, Failure};
use crate::{clock, edge::config::Settings};

/// What stands above the columns.
const HEAD: &str =
    "DECIDED                   OF              WHAT                      BECAME                      BY\n";

/// Runs the command.
pub(crate) fn run(args: &Ledger) -> Result<ExitCode, Failure> {
    let settings = edge::settings(&args.from)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(show(args, &settings))
}

async fn show(args: &Ledger, settings: &Settings) -> Result<ExitCode, Failure> {
    let nats = connect::nats(&settings.nats).await?;
    let since = u64::try_from(args.since.as_millis()).unwrap_or(u64::MAX);
    let mut from = Some(LedgerFrom::Since(clock::now_ms().saturating_sub(since)));
    if !args.json && !exit::print(HEAD)? {
        return Ok(ExitCode::SUCCESS);
    }
    while let Some(at) = from {
        let page = nats.read_ledger(&args.tenant, &args.of, at).await;
        let page = page.map_err(|_| Failure::Unavailable("JetStream did not answer: is NATS well?".into()))?;
        for entry in &page.entries {
            let text = if args.json { object(entry) } else { row(entry) };
            // Nobody reads the output any more.
            if !exit::print(&text)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        from = page.next;
    }
    Ok(ExitCode::SUCCESS)
}

/// An entry for programs.
fn object(entry: &LedgerEntry) -> String {
    let mut object = json!(entry);
    object["of"] = Value::String(entry.cmd.of.to_string());
    format!("{}\n", json_line(&object.to_string()))
}

/// An entry for people: when, where, what, what became of it, and who wanted it.
fn row(entry: &LedgerEntry) -> String {
    let at = entry.outcomes.last().map_or_else(String::new, |last| clock::rfc3339(last.at_ms));
    let what = format!("{} {}", entry.path, entry.action.as_str());
    let word = |outcome: &riser_bus::nats::LedgerOutcome| match &outcome.code {
        Some(code) => format!("{} ({})", outcome.status.as_str(), code.as_str()),
        None => outcome.status.as_str().to_owned(),
    };
    let became = entry.outcomes.iter().map(word).collect::<Vec<_>>().join(", ");
    let (what, became, by) = (visible(&what), visible(&became), visible(&entry.by));
    format!("{at:<24}  {:<14}  {what:<24}  {became:<26}  {by}\n", entry.cmd.of.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LedgerEntry {
        let text = r#"{"cmd":"b12.f0304.000000000000000000000000000000ab.19ac0000000","path":"hall/lock","action":"un\u202elock",
            "by":"client:alice","outcomes":[{"status":"held","at_ms":1760000000000},{"status":"sent","at_ms":1760000000100},
            {"status":"failed","code":"jammed","at_ms":1760000000123}]}"#;
        serde_json::from_str(text).expect("an entry")
    }

    #[test]
    fn an_entry_is_a_line_that_a_peer_cannot_break() {
        assert_eq!(
            row(&entry()),
            "2025-10-09T08:53:20.123Z  b12/f0304       hall/lock un\\u202elock    held, sent, failed (jammed)  client:alice\n"
        );
    }

    #[test]
    fn an_entry_for_programs_is_one_line_that_names_the_address() {
        let line = object(&entry());
        assert_eq!(line.lines().count(), 1);
        let object: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&object["of"], &object["outcomes"][2]["code"]), (&json!("b12/f0304"), &json!("jammed")));
        assert!(!line.contains('\u{202e}'));
    }
}
