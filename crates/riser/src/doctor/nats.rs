//! What the doctor asks of NATS: JetStream, the copies of events, and when these reach a disk.

use std::time::Duration;

use riser_bus::nats::{FoundStream, NatsClient, NatsServer, unix_millis};

use super::monitor::{self, Varz};
use super::{Line, Mark, clocks};
use crate::clock;
use crate::edge::config::Settings;

/// Looks at the server that this process is connected to, at JetStream, and at those that monitoring shows.
pub(super) async fn look(nats: &NatsClient, settings: &Settings) -> Vec<Line> {
    let server = nats.server();
    let (name, version) = (&server.name, &server.version);
    let mut lines = vec![if server.has_advisories {
        let text = format!("nats: {name} has version {version} with known advisories: run 2.12.12, 2.14.3 or newer");
        Line(Mark::Warning, text)
    } else {
        Line(Mark::Good, format!("nats: {name} has version {version}"))
    }];
    if nats.has_jetstream().await {
        lines.push(Line(Mark::Good, "nats: JetStream answers".into()));
        let streams = nats.log(settings.events.clone()).streams().await.ok();
        lines.extend(of_copies(&server, settings.events.replicas, streams.as_deref()));
    } else {
        let text = "nats: JetStream does not answer: enable it, see that most servers run, and let the user publish to \
                    $JS.API.> and hear _INBOX.>";
        lines.push(Line(Mark::Bad, text.into()));
    }
    lines.extend(of_monitors(&settings.monitors).await);
    lines
}

/// Whether there are as many copies of events as the configuration wants; `streams` is none when nobody may list them.
fn of_copies(server: &NatsServer, wanted: usize, streams: Option<&[FoundStream]>) -> Vec<Line> {
    if wanted > 1 && !server.is_clustered {
        let name = &server.name;
        let text = format!("events: replicas is {wanted}, and {name} is alone: set it to 1, or run a cluster of 3");
        return vec![Line(Mark::Bad, text)];
    }
    let Some(streams) = streams else {
        let text = "events: their copies are not known: let the user publish to $JS.API.STREAM.NAMES";
        return vec![Line(Mark::Warning, text.into())];
    };
    let mut lines = vec![];
    if wanted == 1 {
        let text =
            "events: there is one copy, so that a lost server loses them: run 3 servers and set events.replicas to 3";
        lines.push(Line(Mark::Warning, text.into()));
    }
    let short = |stream: &&FoundStream| stream.copies < wanted || !stream.behind.is_empty();
    let bad = streams.iter().filter(short).count();
    match streams.iter().find(short) {
        None => {
            let text = format!("events: {} stream(s) with {wanted} copies each, all of them whole", streams.len());
            lines.push(Line(Mark::Good, text));
        }
        Some(FoundStream { tenant, copies, behind, .. }) => {
            let behind = if behind.is_empty() { String::new() } else { format!(" (not on {})", behind.join(", ")) };
            let text = format!(
                "events: {bad} stream(s) have too few whole copies, as that of {tenant}: {copies} of {wanted}{behind}: see \
                 whether all servers run; a stream follows events.replicas with its next event"
            );
            lines.push(Line(Mark::Bad, text));
        }
    }
    lines
}

async fn of_monitors(urls: &[String]) -> Vec<Line> {
    if urls.is_empty() {
        let text = "nats: when events reach the disk is not known: name each server's monitoring in nats.monitors, or see that \
                    each has `sync_interval: always` in its jetstream block";
        return vec![Line(Mark::Warning, text.into())];
    }
    let mut lines = vec![];
    for url in urls {
        match monitor::ask(url).await {
            Ok(varz) => lines.extend(judge(&varz, clock::now_ms())),
            Err(why) => lines.push(Line(Mark::Warning, format!("nats: monitoring at {url}: {why}"))),
        }
    }
    lines
}

fn judge(varz: &Varz, now_ms: u64) -> Vec<Line> {
    let name = &varz.server_name;
    let sync = match &varz.jetstream.config {
        None => Line(Mark::Warning, format!("nats: {name} has no JetStream")),
        Some(config) if config.sync_always => {
            Line(Mark::Good, format!("nats: {name} writes each event to disk before it is acknowledged"))
        }
        Some(config) => {
            let every = Duration::from_nanos(config.sync_interval).as_secs();
            let text = format!(
                "nats: {name} writes to disk every {every} s, so that a power cut of all servers can lose acknowledged \
                 events: set sync_interval to always"
            );
            Line(Mark::Warning, text)
        }
    };
    let clock = unix_millis(&varz.now).map(|theirs| clocks(name, theirs, now_ms));
    [sync].into_iter().chain(clock).collect()
}

#[cfg(test)]
mod tests {
    use super::super::monitor::{Config, JetStream};
    use super::*;

    fn marks(lines: Vec<Line>) -> Vec<Mark> {
        lines.into_iter().map(|Line(mark, _)| mark).collect()
    }

    #[test]
    fn when_events_reach_the_disk_is_told_of_each_server() {
        use Mark::{Bad, Good, Warning};
        let varz = |config| Varz {
            server_name: "n0".into(),
            now: "1970-01-01T00:16:40Z".into(),
            jetstream: JetStream { config },
        };
        let config = |sync_always| Some(Config { sync_interval: 120_000_000_000, sync_always });
        assert_eq!(marks(judge(&varz(config(true)), 1_000_100)), [Good, Good]);
        assert_eq!(marks(judge(&varz(config(true)), 1_002_000)), [Good, Bad]);
        assert_eq!(marks(judge(&varz(config(false)), 1_000_100)), [Warning, Good]);
        assert!(judge(&varz(config(false)), 0)[0].1.contains("every 120 s"));
        assert_eq!(marks(judge(&varz(None), 1_000_100)), [Warning, Good]);
    }

    #[test]
    fn too_few_copies_are_found() {
        use Mark::{Bad, Good, Warning};
        let server = |is_clustered| NatsServer {
            name: "n0".into(),
            version: "2.15".into(),
            has_advisories: false,
            is_clustered,
        };
        let stream = |copies, behind: &[&str]| FoundStream {
            tenant: "acme".parse().expect("a tenant"),
            mark: None,
            copies,
            behind: behind.iter().map(|&name| name.to_owned()).collect(),
        };
        let look = |is_clustered, wanted, streams: Option<&[FoundStream]>| {
            marks(of_copies(&server(is_clustered), wanted, streams))
        };
        assert_eq!(look(true, 3, Some(&[stream(3, &[])])), [Good]);
        assert_eq!(look(true, 3, Some(&[stream(3, &[]), stream(2, &["n2"])])), [Bad]);
        assert_eq!(look(true, 3, Some(&[stream(1, &[])])), [Bad]);
        assert_eq!(look(true, 3, None), [Warning]);
        assert_eq!(look(false, 3, Some(&[])), [Bad]);
        assert_eq!(look(false, 1, Some(&[])), [Warning, Good]);
        let text = &of_copies(&server(true), 3, Some(&[stream(2, &["n2"])]))[0].1;
        assert!(text.contains("acme: 2 of 3 (not on n2)"), "{text}");
    }
}
