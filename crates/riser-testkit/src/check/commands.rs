//! Commands: what was asked for, what gateways did of it, and what everybody was told.
//!
//! A command's key is its issuer's name for it, `cmd` the broker's. While the registry keeps its data one key is one
//! `cmd`. A loss of everything erases records but for those of commands that were told to be held; what such a record would have said is
//! promised to nobody, and its key may be taken for a new one. Nothing else is excused by it.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use super::model::{Found, Spans};
use crate::history::{Became, Event, Order};

/// For how long after the deadline an outcome may be awaited, in milliseconds.
const DUE_MS: u64 = 5_000;

/// Where a command belongs, and its issuer's name for it: tenant, gateway, key.
type Name = (String, String, String);
/// The broker's name of a command: tenant and `cmd`.
type Cmd = (String, String);

/// Everything about commands.
#[derive(Default)]
pub(super) struct Commands {
    line: usize,
    issued: BTreeMap<Name, Issued>,
    /// The keys by the random number in the body, for a gateway that gets a command before its issuer has an answer.
    bodies: BTreeMap<(String, String, u64), String>,
    named: BTreeMap<Cmd, Named>,
    clients: BTreeMap<(String, String), usize>,
    connections: Vec<Connection>,
    words: BTreeMap<(String, String, u64), (String, String, String)>,
    records: BTreeMap<Cmd, Vec<Became>>,
    emptied: Vec<usize>,
    /// When the registry could not be reached by everybody.
    troubled: Spans,
    pub(super) decided_by_gateways: usize,
}

struct Issued {
    /// The line of the first time.
    first: usize,
    client: String,
    /// The connection of the first time.
    connection: usize,
    order: Order,
    /// When somebody was told first that it is held, under any name.
    held: Option<usize>,
    deadline_ms: u64,
    times: usize,
    /// Who executed it, under which names.
    does: Vec<String>,
}

#[derive(Default)]
struct Named {
    key: String,
    of: String,
    accepted: Option<Accepted>,
    /// When somebody was told first that it is held: from then on its record survives.
    held: Option<usize>,
    /// The line at which its gateway executed it.
    executed: Option<usize>,
    told: Vec<Told>,
    /// Words that decide, and that were answered `ok`.
    words: Vec<(String, String)>,
}

struct Accepted {
    line: usize,
    at: u64,
    connection: usize,
    /// Whether it was issued just once, on the connection that accepted it: then its place in the order is known.
    at_once: bool,
}

/// What one connection was told of a command since it issued or repeated it.
struct Told {
    connection: usize,
    from: u64,
    /// Until it was repeated on the same connection.
    replaced: bool,
    outcomes: Vec<(usize, u64, Became)>,
}

/// One connection of a client.
#[derive(Default)]
struct Connection {
    who: String,
    asked: BTreeMap<u64, Name>,
    over: Option<u64>,
    slow: Spans,
}

fn is_record_lost(became: &Became) -> bool {
    became.status == "unknown" && became.code.as_deref() == Some("record_lost")
}

/// A command that was accepted and executed: when it was executed first, by its place in the history.
type Done<'a> = (&'a Named, &'a Accepted, &'a Issued, usize);

impl Commands {
    pub(super) fn next_line(&mut self) {
        self.line += 1;
    }

    pub(super) fn emptied(&mut self) {
        self.emptied.push(self.line);
    }

    pub(super) fn trouble(&mut self, at: u64, begins: bool) {
        if begins { self.troubled.begin(at) } else { self.troubled.end(at) }
    }

    pub(super) fn record(&mut self, tenant: &str, cmd: &str, outcomes: &[Became]) {
        self.records.insert((tenant.to_owned(), cmd.to_owned()), outcomes.to_vec());
    }

    /// How many commands were accepted, and how many were executed.
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |of: &dyn Fn(&Named) -> bool| self.named.values().filter(|named| of(named)).count();
        (count(&|named| named.accepted.is_some()), count(&|named| named.executed.is_some()))
    }

    pub(super) fn client(&mut self, at: u64, tenant: &str, name: &str, session: u32, event: &Event) -> Found {
        let who = (tenant.to_owned(), name.to_owned());
        if let Event::Hello { .. } = event {
            let connection = Connection { who: format!("{tenant}/{name} {session}"), ..Connection::default() };
            self.clients.insert(who, self.connections.len());
            self.connections.push(connection);
            return Vec::new();
        }
        let Some(&current) = self.clients.get(&who) else { return Vec::new() };
        let connection = &mut self.connections[current];
        match event {
            Event::Closed { .. } | Event::Left { .. } => connection.over = Some(at),
            Event::Slow => connection.slow.begin(at),
            Event::Reads => connection.slow.end(at),
            Event::Command { n, to, key, order, deadline_ms, .. } => {
                let of = (tenant.to_owned(), to.clone(), key.clone());
                connection.asked.insert(*n, of.clone());
                self.bodies.insert((tenant.to_owned(), to.clone(), order.body.r), key.clone());
                let issued = self.issued.entry(of).or_insert_with(|| Issued {
                    first: self.line,
                    client: name.to_owned(),
                    connection: current,
                    order: order.clone(),
                    held: None,
                    deadline_ms: *deadline_ms,
                    times: 0,
                    does: Vec::new(),
                });
                issued.times += 1;
            }
            Event::Ok { n, cmd: Some(cmd), .. } => {
                let Some(of) = connection.asked.remove(n) else { return Vec::new() };
                return self.accepted(at, current, of, cmd);
            }
            Event::Error { n: Some(n), code } => {
                if let Some(of) = connection.asked.remove(n).filter(|_| code == "conflict") {
                    return vec![(Rule::Outcome, format!("{} is refused as another command under its key", of.2))];
                }
            }
            Event::Outcome { cmd, became, .. } => return self.told(at, tenant, current, cmd, became),
            _ => {}
        }
        Vec::new()
    }

    fn accepted(&mut self, at: u64, connection: usize, of: Name, cmd: &str) -> Found {
        let Some(issued) = self.issued.get(&of) else { return Vec::new() };
        let (tenant, address, key) = of;
        let named = self.named.entry((tenant, cmd.to_owned())).or_default();
        if named.key.is_empty() {
            named.key = key;
            named.of = address;
        } else if (&named.key, &named.of) != (&key, &address) {
            return vec![(Rule::Phantom, format!("{cmd} is the name of {} and of {key}", named.key))];
        }
        let at_once = issued.times == 1 && issued.connection == connection;
        named.accepted.get_or_insert(Accepted { line: self.line, at, connection, at_once });
        for told in named.told.iter_mut().filter(|told| told.connection == connection) {
            told.replaced = true;
        }
        named.told.push(Told { connection, from: at, replaced: false, outcomes: Vec::new() });
        Vec::new()
    }

    /// One connection is told an outcome: it must follow from what it was told before.
    fn told(&mut self, at: u64, tenant: &str, connection: usize, cmd: &str, became: &Became) -> Found {
        let named = self.named.get_mut(&(tenant.to_owned(), cmd.to_owned()));
        let told = named.map(|n| (n.key.clone(), n.of.clone(), n));
        let Some((key, of, named)) = told else {
            return vec![(Rule::Phantom, format!("told of {cmd}, which nobody issued"))];
        };
        let Some(told) = named.told.iter_mut().find(|t| t.connection == connection && !t.replaced) else {
            return vec![(Rule::Phantom, format!("told of {cmd}, which it did not issue"))];
        };
        let before: Vec<&Became> = told.outcomes.iter().map(|(_, _, became)| became).collect();
        let wrong = follows(&before, became).map(|why| (Rule::Outcome, format!("{key} {cmd}: {why}")));
        let mut found: Found = wrong.into_iter().collect();
        let mut issued = self.issued.get_mut(&(tenant.to_owned(), of, key.clone()));
        if became.status == "held" {
            if let Some(issued) = &mut issued {
                issued.held.get_or_insert(self.line);
            }
        }
        if let (Some(body), Some(issued)) = (&became.body, issued)
            && *body != issued.order.body
        {
            found.push((Rule::Phantom, format!("{key} {cmd}: its outcome speaks of another body")));
        }
        told.outcomes.push((self.line, at, became.clone()));
        if became.status == "held" {
            named.held.get_or_insert(self.line);
        }
        found
    }

    pub(super) fn gateway(&mut self, tenant: &str, of: &str, event: &Event) -> Found {
        match event {
            Event::Got { cmd, order, .. } => {
                let at = (tenant.to_owned(), of.to_owned(), order.body.r);
                let key = self.bodies.get(&at).cloned().unwrap_or_default();
                let issued = self.issued.get(&(tenant.to_owned(), of.to_owned(), key.clone()));
                if issued.is_none_or(|issued| issued.order != *order) {
                    return vec![(Rule::Phantom, format!("got {cmd}, which nobody issued like this"))];
                }
                let named = self.named.entry((tenant.to_owned(), cmd.clone())).or_default();
                if named.key.is_empty() {
                    named.key = key;
                    of.clone_into(&mut named.of);
                } else if (named.key.as_str(), named.of.as_str()) != (key.as_str(), of) {
                    return vec![(Rule::Phantom, format!("{cmd} is the name of {} and of {key}", named.key))];
                }
                Vec::new()
            }
            Event::Does { cmd } => self.does(tenant, cmd),
            Event::Says { n, cmd, status, code } => {
                let word = (cmd.clone(), status.clone(), code.clone());
                self.words.insert((tenant.to_owned(), of.to_owned(), *n), word);
                Vec::new()
            }
            Event::Ok { n, .. } => {
                let Some((cmd, status, code)) = self.words.remove(&(tenant.to_owned(), of.to_owned(), *n)) else {
                    return Vec::new();
                };
                if let Some(named) = self.named.get_mut(&(tenant.to_owned(), cmd))
                    && !matches!(status.as_str(), "received" | "running")
                {
                    named.words.push((status, code));
                }
                Vec::new()
            }
            Event::Error { n: Some(n), code } => {
                let Some((cmd, ..)) = self.words.remove(&(tenant.to_owned(), of.to_owned(), *n)) else {
                    return Vec::new();
                };
                let unknown = code == "not_found" || code == "conflict";
                if unknown && !self.may_be_erased(tenant, &cmd, self.line) {
                    return vec![(Rule::Lost, format!("its word on {cmd}, which it was sent, is refused: {code}"))];
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn does(&mut self, tenant: &str, cmd: &str) -> Found {
        let (line, at) = (self.line, (tenant.to_owned(), cmd.to_owned()));
        let Some(named) = self.named.get_mut(&at) else { return Vec::new() };
        let of = (tenant.to_owned(), named.of.clone(), named.key.clone());
        if named.executed.replace(line).is_some() {
            return vec![(Rule::Twice, format!("{} is executed again as {cmd}", named.key))];
        }
        let Some(issued) = self.issued.get_mut(&of) else { return Vec::new() };
        issued.does.push(cmd.to_owned());
        // Each further name of the key takes a loss of the one before.
        let lost = |e: &&usize| **e > issued.first && issued.held.is_none_or(|held| **e < held);
        let losses = self.emptied.iter().filter(lost).count();
        if issued.does.len() > losses + 1 {
            return vec![(Rule::Twice, format!("{} is executed as {:?}", of.2, issued.does))];
        }
        Vec::new()
    }

    /// Whether the record of a command may have been erased before this line, with all that the registry had.
    fn may_be_erased(&self, tenant: &str, cmd: &str, line: usize) -> bool {
        let Some(named) = self.named.get(&(tenant.to_owned(), cmd.to_owned())) else { return false };
        let issued = self.issued.get(&(tenant.to_owned(), named.of.clone(), named.key.clone()));
        let survives = |e: usize| named.held.is_some_and(|held| held < e);
        issued.is_some_and(|i| self.emptied.iter().any(|&e| e > i.first && e < line && !survives(e)))
    }

    pub(super) fn end(&mut self, at: u64) -> Found {
        let mut found = Vec::new();
        for ((tenant, cmd), named) in &self.named {
            let Some(issued) = self.issued.get(&(tenant.clone(), named.of.clone(), named.key.clone())) else {
                continue;
            };
            let texts = self.end_of(at, tenant, cmd, named, issued);
            let prefix = format!("{tenant} {} {} {cmd}", named.of, named.key);
            found.extend(texts.into_iter().map(|(rule, text)| (rule, format!("{prefix}: {text}"))));
        }
        for ((tenant, cmd), outcomes) in &self.records {
            let finals = outcomes.iter().filter(|became| became.last).count();
            if finals != 1 {
                found.push((Rule::Outcome, format!("{tenant} {cmd}: its record has {finals} final outcomes")));
            }
        }
        found.extend(self.order());
        // By the records, and by what was told of those that were lost.
        let decides = |became: &Became| became.last && became.body.is_some();
        let told = |named: &Named| named.told.iter().flat_map(|t| &t.outcomes).any(|(_, _, became)| decides(became));
        let recorded = |cmd: &Cmd| self.records.get(cmd).is_some_and(|record| record.iter().any(decides));
        self.decided_by_gateways = self.named.iter().filter(|(cmd, named)| told(named) || recorded(cmd)).count();
        found
    }

    fn end_of(&self, at: u64, tenant: &str, cmd: &str, named: &Named, issued: &Issued) -> Found {
        let mut found = Vec::new();
        let erased = self.may_be_erased(tenant, cmd, self.line);
        let record = self.records.get(&(tenant.to_owned(), cmd.to_owned()));
        if record.is_none() && named.accepted.is_some() && !erased {
            found.push((Rule::Lost, "it was accepted, and there is no record of it".into()));
        }
        let mut lists: Vec<Vec<&Became>> = vec![record.map(|r| r.iter().collect()).unwrap_or_default()];
        for told in &named.told {
            let mut list = Vec::new();
            for (line, _, became) in &told.outcomes {
                if !is_record_lost(became) {
                    list.push(became);
                } else if !self.may_be_erased(tenant, cmd, *line) {
                    found.push((Rule::Lost, "its record was lost, though the registry kept its data".into()));
                }
            }
            lists.push(list);
            found.extend(self.in_time(at, named, issued, told));
        }
        // All were told the same, some of them more of it; the record, when it is there, says all of it.
        let longest = lists.iter().max_by_key(|list| list.len()).cloned().unwrap_or_default();
        if let Some(list) = lists.iter().find(|list| !longest.starts_with(list)) {
            found.push((Rule::Outcome, format!("told was {:?} and {:?}", words(list), words(&longest))));
        }
        if record.is_some_and(|record| record.len() < longest.len()) {
            found.push((Rule::Outcome, format!("told was {:?}, the record says less", words(&longest))));
        }
        let last = longest.iter().find(|became| became.last).map_or("", |became| became.status.as_str());
        let sent = longest.iter().any(|became| became.status == "sent");
        let executed = named.executed.is_some();
        if executed && (matches!(last, "expired" | "offline") || last == "cancelled" && !sent) {
            found.push((Rule::Outcome, format!("it was executed, and its outcome is {last}")));
        }
        if !executed && last == "succeeded" {
            found.push((Rule::Outcome, "it succeeded, and nobody executed it".into()));
        }
        if let Some(record) = record {
            let kept = |(status, code): &&(String, String)| {
                !record.iter().any(|b| b.status == *status && b.code.as_ref() == Some(code))
            };
            let lost = named.words.iter().find(kept);
            found.extend(lost.map(|(status, _)| (Rule::Lost, format!("the word {status} was taken and is not kept"))));
        }
        found
    }

    /// Whether who waited for an outcome was told in time: in a calm time within some seconds, in the end in any case.
    fn in_time(&self, at: u64, named: &Named, issued: &Issued, told: &Told) -> Option<(Rule, String)> {
        let connection = &self.connections[told.connection];
        let deadline = (named.accepted.as_ref()?.at + issued.deadline_ms).max(told.from);
        let due = deadline + DUE_MS;
        let until = connection.over.unwrap_or(at);
        if told.replaced || until < due {
            return None;
        }
        let final_at = told.outcomes.iter().find(|(_, _, became)| became.last).map(|(_, at, _)| *at);
        let disturbed = self.troubled.touch(deadline, due) || connection.slow.touch(deadline, due);
        let who = &connection.who;
        match final_at {
            None if connection.over.is_none() || !disturbed => {
                Some((Rule::Outcome, format!("{who} was never told an outcome, due at {due} ms")))
            }
            Some(at) if at > due && !disturbed => {
                Some((Rule::Outcome, format!("{who} was told an outcome at {at} ms, due at {due} ms")))
            }
            _ => None,
        }
    }

    /// Whether gateways executed what one sender was told is accepted in the order in which it was. A registry that was
    /// emptied between the two says nothing: it may take an older session for the one that holds the gateway, and a
    /// command sent to the newer one before is done when its gateway comes to read it.
    fn order(&self) -> Found {
        let mut senders: BTreeMap<(&str, &str, &str), Vec<Done<'_>>> = BTreeMap::new();
        for ((tenant, _), named) in &self.named {
            let issued = self.issued.get(&(tenant.clone(), named.of.clone(), named.key.clone()));
            if let (Some(accepted), Some(executed), Some(issued)) = (&named.accepted, named.executed, issued) {
                let of = (tenant.as_str(), named.of.as_str(), issued.client.as_str());
                senders.entry(of).or_default().push((named, accepted, issued, executed));
            }
        }
        let mut found = Vec::new();
        for ((tenant, of, client), all) in senders {
            let pairs = all.iter().flat_map(|first| all.iter().map(move |second| (first, second)));
            for ((a, accepted, _, executed), (b, later, issued, sooner)) in pairs {
                let both_at_once = accepted.at_once && later.at_once && accepted.connection == later.connection;
                let before = accepted.line < issued.first || both_at_once && accepted.line < later.line;
                let lost = self.emptied.iter().any(|e| (accepted.line..*sooner).contains(e));
                if before && executed > sooner && !lost {
                    let text = format!("{tenant} {of}: {} of {client} was accepted before {}", a.key, b.key);
                    found.push((Rule::Order, format!("{text}, and executed after it")));
                }
            }
        }
        found
    }
}

fn words<'a>(list: &[&'a Became]) -> Vec<&'a str> {
    list.iter().map(|became| became.status.as_str()).collect()
}

/// Why an outcome cannot follow those before it; none when it can.
fn follows(before: &[&Became], next: &Became) -> Option<String> {
    let had = |status: &str| before.iter().any(|became| became.status == status);
    let decided = before.iter().find(|became| became.last);
    let status = next.status.as_str();
    let open = matches!(status, "held" | "sent" | "received" | "running");
    let never: BTreeSet<&str> = ["expired", "offline", "held"].into();
    if let Some(decided) = decided {
        return (next.last || !next.late).then(|| format!("{status} after the final {}", decided.status));
    }
    if next.late || next.last == open {
        return Some(format!("{status} with final: {}, late: {}", next.last, next.late));
    }
    if had("sent") && (never.contains(status) || status == "sent") {
        return Some(format!("{status} after it was sent"));
    }
    let by_gateway = matches!(status, "received" | "running" | "succeeded" | "failed" | "rejected" | "unknown");
    if by_gateway && !had("sent") && !is_record_lost(next) {
        return Some(format!("{status} before it was sent"));
    }
    (status == "held" && had("held")).then(|| "held twice".to_owned())
}
