//! Runs many seeds of the simulation, and says which of them break a promise.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use riser_testkit::check::{Verdict, check};
use riser_testkit::{history, sim};

/// Simulates clusters, one per seed, and checks what their peers saw.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  riser-sim --seeds 10000\n  riser-sim --from 4711 --seeds 1 --history h.jsonl\n\nExit codes: 0 all valid, 1 a promise was broken or nothing could be said, 64 bad usage."
)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Write the history of the last seed, or of the first that fails, to this file
    #[arg(long)]
    history: Option<PathBuf>,
    /// Seeds at once
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    let next = AtomicU64::new(args.from);
    let failed = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| work(&args, &next, &failed));
        }
    });
    let failed = failed.into_inner();
    eprintln!("\r{} seeds, {} failed", args.seeds, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(args: &Args, next: &AtomicU64, failed: &parking_lot::Mutex<Vec<u64>>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= args.from + args.seeds {
            return;
        }
        let lines = sim::run(seed, sim::undecorated());
        let verdict = check(&lines);
        let done = seed - args.from + 1;
        if done.is_multiple_of(50) {
            eprint!("\r{done} of {}", args.seeds);
            let _ = std::io::stderr().flush();
        }
        let first = verdict != Verdict::Valid && failed.lock().is_empty();
        if let Some(file) = args.history.as_ref().filter(|_| first || args.seeds == 1)
            && let Err(error) = std::fs::write(file, history::to_json_lines(&lines))
        {
            eprintln!("cannot write the history to {}: {error}", file.display());
        }
        match verdict {
            Verdict::Valid => continue,
            Verdict::Unknown(why) => println!("\rseed {seed}: unknown: {why}"),
            Verdict::Invalid(violations) => {
                for violation in violations.iter().take(5) {
                    println!("\rseed {seed}: {violation}");
                }
            }
        }
        failed.lock().push(seed);
    }
}
