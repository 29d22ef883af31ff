//! `riser-loadtest`: measures Riser beside its peers. This file wires.

mod cli;
mod clock;
mod echo;
mod fleet;
mod process;
mod progress;
mod report;
mod result;
mod run;
mod scenario;
mod server;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use clap::error::ErrorKind;

use cli::{Cli, Command, How};
use progress::{Progress, say};
use result::Results;
use run::Bench;
use scenario::{Changes, Scenario};
use server::{Given, Programs, Subject};

/// Bad usage (`EX_USAGE`).
const USAGE: u8 = 64;
/// Ended by Ctrl-C, as a shell shows it.
const INTERRUPTED: u8 = 130;
/// A machine with more load than this, per core, is not quiet.
const QUIET: f64 = 0.25;
/// What the budgets are measured with.
const FOR_BUDGETS: [&str; 8] = ["idle", "ingest", "fanout", "state", "command", "storm", "slow", "poll"];

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe behind `--help | head` is no failure.
            let _ = error.print();
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if help { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    match command(cli.command) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("riser-loadtest: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => {
            let changes = Changes { smoke: args.smoke, set: args.set };
            let scenarios = chosen(&args.scenarios, &changes)?;
            measured(&scenarios, &args.how, |results| print(&report::table::all(results)))
        }
        Command::Budgets(args) => {
            let budgets = |results: &Results| {
                let (text, kept) = report::budgets::table(results);
                print(&text)?;
                Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            };
            if !args.from.is_empty() {
                let mut all = Results::new();
                for path in &args.from {
                    let Results { missing, runs, .. } = Results::read(path)?;
                    all.missing.extend(missing);
                    all.runs.extend(runs);
                }
                return budgets(&all);
            }
            let changes = Changes { smoke: args.smoke, set: Vec::new() };
            let names = FOR_BUDGETS.map(str::to_owned);
            measured(&chosen(&names, &changes)?, &args.how, budgets)
        }
        Command::Compare { before, after } => {
            print(&report::compare::table(&Results::read(&before)?, &Results::read(&after)?))
        }
        Command::List => {
            let all = scenario::all(&Changes::default())?;
            let lines: Vec<_> =
                all.iter().map(|scenario| format!("{:10} {}\n", scenario.name, scenario.about)).collect();
            print(&lines.concat())
        }
        Command::Peers(args) => {
            let programs = programs(&args)?;
            let line = |subject: Subject| match programs.missing(subject) {
                None => format!("{:10} {}\n", subject.name(), subject.does()),
                Some(why) => format!("{:10} missing: {why}\n", subject.name()),
            };
            print(&Subject::started().map(line).collect::<String>())
        }
        Command::Generate => worker::main().map(|()| ExitCode::SUCCESS),
        Command::Echo => echo::main().map(|()| ExitCode::SUCCESS),
        Command::RegistryShare { least, most } => {
            let bytes = runtime()?.block_on(run::registry_share(least, most))?;
            print(&format!("{bytes:.0}\n"))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Writes to standard output. Whoever closed it has seen enough.
fn print(text: &str) -> Result<ExitCode> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn chosen(names: &[String], changes: &Changes) -> Result<Vec<Scenario>> {
    if names == ["all"] {
        return scenario::all(changes);
    }
    names.iter().map(|name| scenario::find(name, changes)).collect()
}

fn programs(args: &cli::Programs) -> Result<Programs> {
    let beside = || -> Result<_> {
        let me = std::env::current_exe().context("this program does not know where it is")?;
        Ok(me.with_file_name("riser"))
    };
    let riser = args.riser.clone().map_or_else(beside, Ok)?;
    let given = args.key_file.as_ref().map(|file| Given::read(&args.edges, file)).transpose()?;
    Ok(Programs {
        riser,
        npm: args.npm.clone(),
        mosquitto: args.mosquitto.clone(),
        centrifugo: args.centrifugo.clone(),
        nats: args.nats_server.clone(),
        redis: args.redis_server.clone(),
        cluster: args.cluster,
        given,
    })
}

/// Runs scenarios, writes what was found, and shows it. Ctrl-C ends what was started and keeps what was found.
fn measured(scenarios: &[Scenario], how: &How, show: impl FnOnce(&Results) -> Result<ExitCode>) -> Result<ExitCode> {
    process::raise_files();
    let mut results = Results::new();
    #[expect(clippy::cast_precision_loss)]
    let quiet = process::load_average() <= QUIET * results.cores as f64;
    if !quiet {
        say("riser-loadtest: this machine is not quiet; only ratios of subjects in the same run mean something");
    }
    let steps: usize = scenarios.iter().map(|scenario| scenario.plan.steps()).sum();
    let programs = programs(&how.programs)?;
    for subject in Subject::started() {
        if let Some(why) = programs.missing(subject) {
            results.missing.insert(subject.name().to_owned(), why);
        }
    }
    let bench = Bench { programs, progress: Progress::new(steps as u64 * u64::from(how.rounds)), rounds: how.rounds };
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            done = run_all(scenarios, &bench, &mut results) => done.map(|()| false),
            _ = tokio::signal::ctrl_c() => Ok(true),
        }
    });
    drop(runtime);
    drop(bench);
    write(&results, &how.out)?;
    if ended? {
        say("riser-loadtest: ended by Ctrl-C; what was measured until then is written");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    show(&results)
}

async fn run_all(scenarios: &[Scenario], bench: &Bench, results: &mut Results) -> Result<()> {
    for scenario in scenarios {
        let first = results.runs.len();
        let done = scenario.plan.run(bench, &scenario.name, &mut results.runs).await;
        for run in &mut results.runs[first..] {
            // Of these only what peers see is known.
            if run.subject == Subject::Given.name() {
                run.forget_costs();
            }
        }
        done.with_context(|| format!("scenario {} failed", scenario.name))?;
    }
    Ok(())
}

fn write(results: &Results, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let (json, html) = (folder.join("loadtest.json"), folder.join("loadtest.html"));
    let text = serde_json::to_string_pretty(results)? + "\n";
    for (path, text) in [(&json, text), (&html, report::html::page(results))] {
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    say(&format!("written: {} and {}", json.display(), html.display()));
    Ok(())
}
