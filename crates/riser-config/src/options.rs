//! Every option of an edge, once: what the configuration file, the environment and the flags may hold, what the
//! default file prints, and what the reference in `docs/OPERATIONS.md` lists.

use std::fmt::Write as _;

/// What an option's value looks like in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string, also for times, sizes, addresses and files.
    Text,
    /// A list of strings; in the environment and in flags one string with commas.
    List,
    /// A whole number.
    Number,
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// Its section.
    pub section: &'static str,
    /// Its name in there.
    pub key: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// As a configuration file holds it; none when there is nothing until somebody sets it.
    pub default: Option<&'static str>,
    /// What somebody might set it to, for an option without a default.
    pub example: &'static str,
    /// A secret: taken from the environment or, with `_file` behind its name, from a file, and from nowhere else.
    pub secret: bool,
    /// For people.
    pub doc: &'static str,
}

/// What a section is about.
pub const SECTIONS: &[(&str, &str)] = &[
    ("edge", "The edge itself, and what gateways and clients connect to."),
    ("tls", "TLS on the public listener. Without it the edge speaks plain HTTP, for a proxy in front of it."),
    ("admin", "The port for supervisors and scrapers: /healthz, /readyz, /metrics, POST /drain. Never make it public."),
    ("nats", "The NATS cluster, 2.12 or newer with JetStream, that edges talk over. At most one kind of credentials."),
    ("events", "What JetStream keeps of each tenant's events. It must be the same at all edges."),
    (
        "commands",
        "What JetStream keeps of all tenants' commands, in as many copies as of events. It must be the same at all edges.",
    ),
    (
        "redis",
        "The Redis, 7 or newer, that keeps presence, state and commands: one server, or Sentinels and a master's name.",
    ),
    ("tenants", "Who may connect."),
    (
        "control",
        "The control plane, riser-control, which takes this file too. Edges look at nothing in here; it looks at the \
         sections nats, events, redis, tenants and log as well.",
    ),
    ("log", "Log lines, on standard error."),
];

const fn text(section: &'static str, key: &'static str, default: &'static str, doc: &'static str) -> Opt {
    Opt { section, key, kind: Kind::Text, default: Some(default), example: "", secret: false, doc }
}

const fn open(section: &'static str, key: &'static str, example: &'static str, doc: &'static str) -> Opt {
    Opt { section, key, kind: Kind::Text, default: None, example, secret: false, doc }
}

const fn secret(section: &'static str, key: &'static str, doc: &'static str) -> Opt {
    Opt { section, key, kind: Kind::Text, default: None, example: "", secret: true, doc }
}

const fn number(section: &'static str, key: &'static str, default: &'static str, doc: &'static str) -> Opt {
    Opt { section, key, kind: Kind::Number, default: Some(default), example: "", secret: false, doc }
}

/// Every option, in the order of [`SECTIONS`].
pub const OPTIONS: &[Opt] = &[
    open("edge", "id", "edge-1", "Its name, its own within the cluster. Without it, the machine's name."),
    text("edge", "listen", "0.0.0.0:8080", "Where gateways and clients connect."),
    text(
        "edge",
        "heartbeat",
        "20s",
        "Between two pings to a peer, 100ms to 10m. Nothing from it for two of them, and it is gone.",
    ),
    text(
        "edge",
        "hello",
        "5s",
        "How long a connection may take to ask something, and a session to say hello: 1s to 1m.",
    ),
    number(
        "edge",
        "handshakes",
        "4096",
        "Connections whose session has not begun, in all, 1 to 1000000. Further ones are told to come back.",
    ),
    Opt {
        section: "edge",
        key: "handshakes_each",
        kind: Kind::Number,
        default: None,
        example: "2048",
        secret: false,
        doc: "Of these, most from one address (IPv6: one /64) and most of one tenant, 1 to 1000000. Without it, half.",
    },
    number(
        "edge",
        "openings",
        "256",
        "Gateways that Redis is asked to let in at once, 1 to 100000. As many as handshakes wait for it, tenants in turn.",
    ),
    Opt {
        section: "edge",
        key: "trusted_proxies",
        kind: Kind::List,
        default: None,
        example: "[\"10.0.0.0/8\", \"fd00::/8\"]",
        secret: false,
        doc: "Addresses of proxies that are believed when Forwarded or X-Forwarded-For says for whom they ask.",
    },
    text(
        "edge",
        "send_buffer",
        "32 KiB",
        "The kernel's send buffer per socket, 4 KiB to 4 MiB: what lies there can no longer be conflated.",
    ),
    text(
        "edge",
        "conflate_above",
        "32 KiB",
        "Bytes that may wait for one slow reader before its state conflates, 1 KiB to 1 MiB.",
    ),
    text("edge", "slow", "5m", "How long a client that reads nothing may stay, 10s to 1h."),
    text("edge", "drain_window", "30s", "Over how long the closes are spread when the edge is drained, 0s to 10m."),
    text(
        "edge",
        "grace",
        "60s",
        "How long a drain may take in all, at least 15s more than drain_window. Give a supervisor more than that.",
    ),
    open(
        "tls",
        "cert_file",
        "/etc/riser/tls.crt",
        "The certificate and those that signed it, in PEM. Taken anew when the file changes.",
    ),
    open("tls", "key_file", "/etc/riser/tls.key", "Its private key, in PEM."),
    text("admin", "listen", "127.0.0.1:8081", "Where it listens."),
    Opt {
        section: "nats",
        key: "servers",
        kind: Kind::List,
        default: Some("[\"nats://127.0.0.1:4222\"]"),
        example: "",
        secret: false,
        doc: "Servers of one cluster, nats://host:port or tls://host:port. One that answers is enough.",
    },
    open("nats", "user", "riser", "The user, with password_file."),
    open("nats", "password_file", "/etc/riser/nats.password", "A file that holds nothing but the user's password."),
    secret("nats", "password", "The user's password."),
    open("nats", "token_file", "/etc/riser/nats.token", "A file that holds nothing but a token, instead of a user."),
    secret("nats", "token", "A token, instead of a user."),
    open(
        "nats",
        "creds_file",
        "/etc/riser/nats.creds",
        "A credentials file as NATS' own tools write it, instead of a user.",
    ),
    open(
        "nats",
        "ca_file",
        "/etc/riser/nats-ca.crt",
        "The only certificates that a server's may be signed with, in PEM. With it, TLS is needed.",
    ),
    open(
        "nats",
        "cert_file",
        "/etc/riser/nats.crt",
        "The certificate that this edge shows to NATS, in PEM. With it, TLS is needed.",
    ),
    open("nats", "key_file", "/etc/riser/nats.key", "Its private key, in PEM."),
    Opt {
        section: "nats",
        key: "monitors",
        kind: Kind::List,
        default: None,
        example: "[\"http://10.0.0.1:8222\", \"http://10.0.0.2:8222\"]",
        secret: false,
        doc: "Monitoring of each NATS server, http://host:port. Only `riser doctor` asks there.",
    },
    number(
        "events",
        "replicas",
        "3",
        "Servers that keep a copy, 1 to 5: 1 for a NATS of one server, 3 so that one may die.",
    ),
    text("events", "max_age", "7d", "How old an event becomes, 1h to 3650d."),
    text(
        "events",
        "max_size",
        "512 MiB",
        "About what one tenant's events take at most in each copy, 1 MiB to 1 TiB. Nothing is set aside for it.",
    ),
    number("events", "max_count", "1000000", "Most events of one tenant, 1000 to 1000000000."),
    text(
        "commands",
        "held_size",
        "256 MiB",
        "What copies of held commands take at most, 1 MiB to 1 TiB, and is set aside for them. Beyond it none is held.",
    ),
    text("commands", "ledger_age", "90d", "How old an entry of the ledger becomes, 1h to 3650d."),
    text(
        "commands",
        "ledger_size",
        "256 MiB",
        "What the ledger takes at most, 1 MiB to 1 TiB, and is set aside for it. Beyond it the oldest entries go.",
    ),
    open(
        "redis",
        "server",
        "redis://127.0.0.1:6379",
        "One server, redis://host:port, or rediss://host:port with TLS. Without it and sentinels, the one on this machine.",
    ),
    Opt {
        section: "redis",
        key: "sentinels",
        kind: Kind::List,
        default: None,
        example: "[\"redis://10.0.0.1:26379\", \"redis://10.0.0.2:26379\"]",
        secret: false,
        doc: "Sentinels that know where the master is, instead of server.",
    },
    open("redis", "master", "riser", "What the Sentinels call the master."),
    open("redis", "user", "riser", "The ACL user; without it, Redis' default user."),
    open("redis", "password_file", "/etc/riser/redis.password", "A file that holds nothing but the user's password."),
    secret("redis", "password", "The user's password."),
    number("redis", "database", "0", "The number of the database, 0 to 65535."),
    open("redis", "sentinel_user", "riser", "The ACL user of the Sentinels themselves, if they have any."),
    open(
        "redis",
        "sentinel_password_file",
        "/etc/riser/sentinel.password",
        "A file that holds nothing but the password for the Sentinels.",
    ),
    secret("redis", "sentinel_password", "The password for the Sentinels."),
    open(
        "redis",
        "ca_file",
        "/etc/riser/redis-ca.crt",
        "The only certificates that a server's may be signed with, in PEM. With it, TLS is needed.",
    ),
    open(
        "redis",
        "cert_file",
        "/etc/riser/redis.crt",
        "The certificate that this edge shows to Redis and Sentinels, in PEM.",
    ),
    open("redis", "key_file", "/etc/riser/redis.key", "Its private key, in PEM."),
    text(
        "tenants",
        "source",
        "file",
        "Where edges have the tenants from: file, or kv for the bucket that the control plane writes.",
    ),
    text("tenants", "max_size", "64 MiB", "Bytes that the bucket of tenants takes at most, 1 MiB to 10 GiB."),
    text(
        "tenants",
        "file",
        "tenants.toml",
        "The tenants, their keys and limits. Taken anew when it changes; see `riser tenants --help`.",
    ),
    secret(
        "tenants",
        "hash_key",
        "What API keys are hashed with, 32 bytes or more, the same at all edges: `riser tenants new-secret` makes one.",
    ),
    text("control", "listen", "127.0.0.1:8090", "Where the admin API listens. Never make it public."),
    text("control", "health", "127.0.0.1:8091", "Its port for supervisors and scrapers: /healthz, /readyz, /metrics."),
    open(
        "control",
        "credential_file",
        "control.credentials",
        "Who may use the admin API: on each line a secret, with a name before it if there are several.",
    ),
    text("log", "format", "text", "text for people, json for machines."),
    text(
        "log",
        "level",
        "info,async_nats=warn",
        "Which lines there are: error, warn, info, debug, or as `warn,riser_edge=debug`.",
    ),
];

/// The option of this name, if there is one.
pub fn find(section: &str, key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|opt| opt.section == section && opt.key == key)
}

/// The options of a section that a file may hold.
pub fn of_file(section: &str) -> impl Iterator<Item = &'static Opt> {
    OPTIONS.iter().filter(move |opt| opt.section == section && !opt.secret)
}

impl Opt {
    /// `section.key`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The variable of the environment.
    pub fn variable(&self) -> String {
        format!("RISER_{}_{}", self.section, self.key).to_ascii_uppercase()
    }

    fn written(&self, value: &str) -> String {
        if self.kind == Kind::Text { format!("\"{value}\"") } else { value.to_owned() }
    }

    /// The line of a configuration file that sets it; commented out when it has no default.
    fn line(&self) -> String {
        match self.default {
            Some(default) => format!("{} = {}", self.key, self.written(default)),
            None => format!("# {} = {}", self.key, self.written(self.example)),
        }
    }
}

/// A configuration file with every option at its default.
pub fn default_file() -> String {
    let mut file = String::from(
        "# An edge of Riser. Every option is here with its default; those without one are commented out.\n\
         # The environment goes before this file: RISER_EDGE_LISTEN is edge.listen, lists have commas. `--set edge.listen=…`\n\
         # goes before both. Names of files are relative to the folder of this file. Passwords and tokens do not belong in\n\
         # here: name a file, or set RISER_NATS_PASSWORD, RISER_NATS_TOKEN, RISER_REDIS_PASSWORD.\n",
    );
    for (section, about) in SECTIONS {
        // Writing to a string cannot fail.
        let _ = write!(file, "\n# {about}\n[{section}]\n");
        for opt in of_file(section) {
            let _ = write!(file, "# {}\n{}\n", opt.doc, opt.line());
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_a_section_and_has_a_name_of_its_own() {
        let mut names: Vec<_> = OPTIONS.iter().map(Opt::variable).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), OPTIONS.len());
        for opt in OPTIONS {
            assert!(SECTIONS.iter().any(|(section, _)| *section == opt.section), "{}", opt.name());
            assert!(opt.secret || opt.default.is_some() || !opt.example.is_empty(), "{}", opt.name());
        }
    }

    #[test]
    fn the_reference_in_the_documentation_lists_every_option() {
        let docs = include_str!("../../../docs/OPERATIONS.md");
        for opt in OPTIONS {
            let default = match opt.default {
                Some(default) => format!("`{default}`"),
                None => "none".to_owned(),
            };
            let row = format!("| `{}` | {default} | {} |", opt.name(), opt.doc);
            assert!(docs.contains(&row), "docs/OPERATIONS.md lacks the row:\n{row}");
        }
    }
}
