//! How many flats a machine holds, from what was measured: by memory, and by CPU for several lives of a flat.

use std::fmt::Write as _;

use super::{aligned, number};
use crate::result::Summary;

/// Memory that the kernel takes for a socket that rests, in bytes, whatever the server: measured once, and not in a
/// server's own memory.
const KERNEL_BYTES: f64 = 3_700.0;
/// A gibibyte.
const GIB: f64 = 1_073_741_824.0;
/// Microseconds of CPU that a core has in a second.
const CORE_US: f64 = 1_000_000.0;
/// Seconds between two states of a flat; none for one that rests.
const LIVES: [Option<f64>; 4] = [None, Some(60.0), Some(10.0), Some(1.0)];

/// The table, for each way of Riser that was measured; empty when none was.
pub(super) fn table(all: &[Summary]) -> String {
    let mut rows = vec![["sizing", "flats", "from"].map(str::to_owned).to_vec()];
    for subject in ["riser", "cluster"] {
        rows.extend(memory(all, subject));
        rows.extend(cpu(all, subject));
    }
    if rows.len() == 1 {
        return String::new();
    }
    let mut out = String::from("\n");
    out.push_str(&aligned(&rows));
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "A core is one that does nothing else, and flats that are shown to nobody: a delivery costs what fan-out says."
    );
    out
}

fn figure(all: &[Summary], scenario: &str, subject: &str, name: &str) -> Option<f64> {
    all.iter().find(|s| s.scenario == scenario && s.subject == subject)?.figure(name)
}

fn memory(all: &[Summary], subject: &str) -> Vec<Vec<String>> {
    let Some(bytes) = figure(all, "idle", subject, "bytes_per_session").filter(|bytes| *bytes > 0.0) else {
        return Vec::new();
    };
    let row = |what: &str, bytes: f64| {
        vec![format!("{subject}: {what}"), number((GIB / bytes).floor()), format!("{} bytes each", number(bytes))]
    };
    vec![row("per GiB of the server's own", bytes), row("per GiB, with the kernel's part", bytes + KERNEL_BYTES)]
}

fn cpu(all: &[Summary], subject: &str) -> Vec<Vec<String>> {
    let Some(rest) = figure(all, "idle", subject, "rest_cpu_us_per_session_second") else { return Vec::new() };
    let state = |s: &&Summary| s.scenario == "ingest" && s.subject == subject && s.variant == "0 rest";
    let state = all.iter().find(state).and_then(|s| s.figure("cpu_us_per_frame_above_rest"));
    let mut rows = Vec::new();
    for life in LIVES {
        let (what, spent, from) = match (life, state) {
            (None, _) => ("at rest".to_owned(), rest, format!("{} µs/s each", number(rest))),
            (Some(every), Some(state)) => {
                let from = format!("{} µs/s, and {} µs a state", number(rest), number(state));
                (format!("one state every {every} s"), rest + state / every, from)
            }
            (Some(_), None) => continue,
        };
        // The kernel counts CPU in ticks of 10 ms: so few sessions for so short a time may have cost nothing.
        if spent > 0.0 {
            rows.push(vec![format!("{subject}: per core, {what}"), number((CORE_US / spent).floor()), from]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Results, Run};

    #[test]
    fn flats_are_what_one_takes_of_a_gibibyte_and_of_a_second() {
        let mut results = Results::new();
        let mut idle = Run::new("idle", "at rest", "riser", 1);
        idle.figure("bytes_per_session", 2_048.0);
        idle.figure("rest_cpu_us_per_session_second", 2.0);
        let mut ingest = Run::new("ingest", "0 rest", "riser", 1);
        ingest.figure("cpu_us_per_frame_above_rest", 80.0);
        results.runs.extend([idle, ingest]);
        let text = table(&results.summaries());
        let flats = |what: &str| {
            let line = text.lines().find(|line| line.contains(what)).unwrap_or_default();
            line.split("  ").filter(|cell| !cell.is_empty()).nth(1).unwrap_or_default().trim().to_owned()
        };
        assert_eq!(flats("per GiB of the server's own"), "524 288");
        assert_eq!(flats("at rest"), "500 000");
        assert_eq!(flats("every 10 s"), "100 000");
        assert_eq!(table(&[]), "");
    }
}
