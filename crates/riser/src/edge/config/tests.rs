//! Configurations that are taken, and what is said of those that are not.

use riser_bus::nats::NatsAuth;
use riser_config::options;

use super::*;

fn sources(file: &str) -> Sources {
    Sources { file: Some(("riser.toml".into(), file.into())), machine: "node-7.example".into(), ..Sources::default() }
}

fn read(file: &str) -> Result<Settings, ConfigError> {
    Settings::read(&sources(file))
}

fn refused(file: &str) -> String {
    read(file).err().unwrap_or_else(|| panic!("it is taken:\n{file}")).to_string()
}

/// All of the settings that are no secrets.
fn shown(settings: &Settings) -> String {
    let Settings { edge, listen, admin, grace, tls, shown, nats, monitors, events, ledger, redis, tenants, kv, log } =
        settings;
    let edge = EdgeConfig { seed: 0, ..edge.clone() };
    let kept = format!("{events:?} {kv:?} {ledger:?}");
    let servers = format!("{shown:?} {nats:?} {monitors:?} {redis:?}");
    format!("{edge:?} {listen} {admin} {grace:?} {tls:?} {servers} {kept} {tenants:?} {log:?}")
}

#[test]
fn the_default_file_parses_to_the_defaults() {
    let defaults = read("").expect("the defaults");
    let file = read(&default_file()).expect("the default file");
    assert_eq!(shown(&file), shown(&defaults));
    // And those are the ones of the libraries, wherever an option stands for one of theirs.
    let edge = EdgeConfig { seed: 0, ..EdgeConfig::new("node-7-example".parse().expect("an edge")) };
    assert_eq!(format!("{:?}", EdgeConfig { seed: 0, ..defaults.edge.clone() }), format!("{edge:?}"));
    assert_eq!(format!("{:?}", defaults.events), format!("{:?}", LogConfig::default()));
    assert_eq!(format!("{:?}", defaults.kv), format!("{:?}", KvConfig::default()));
}

#[test]
fn what_the_default_file_has_commented_out_can_be_set() {
    for line in default_file().lines().filter_map(|line| line.strip_prefix("# ")) {
        let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) else { continue };
        let mut found = false;
        for opt in options::OPTIONS.iter().filter(|opt| opt.default.is_none() && opt.key == key) {
            let file = format!("[{}]\n{key} = {value}\n", opt.section);
            sources(&file).values().expect(line);
            found = true;
        }
        assert!(found, "{line}");
    }
}

#[test]
fn the_environment_goes_before_the_file_and_flags_go_before_both() {
    let mut sources = sources("[edge]\nid = \"of-file\"\nheartbeat = \"1s\"\nhello = \"2s\"\n");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    sources.environment = vec![
        variable("RISER_EDGE_HEARTBEAT", "3s"),
        variable("RISER_EDGE_HELLO", "4s"),
        variable("RISER_NATS_SERVERS", "nats://a:1, nats://b:2"),
        variable("RISER_KEY", "of another command"),
        variable("RISER_EDGE_SERVICE_HOST", "10.0.0.1"),
        variable("RISER_NATS_PORT_4222_TCP_ADDR", "10.0.0.2"),
    ];
    sources.flags = vec!["edge.hello=5s".into()];
    let settings = Settings::read(&sources).expect("good settings");
    assert_eq!(settings.edge.id.as_str(), "of-file");
    assert_eq!(settings.edge.heartbeat, Duration::from_secs(3));
    assert_eq!(settings.edge.hello, Duration::from_secs(5));
    assert_eq!(settings.nats.urls, ["nats://a:1", "nats://b:2"]);
}

#[test]
fn one_address_or_tenant_may_have_half_of_the_places_unless_it_is_said() {
    let each = |file: &str| read(file).expect("good settings").edge.handshakes_each;
    assert_eq!(each("[edge]\nhandshakes = 101\n"), 51);
    assert_eq!(each("[edge]\nhandshakes = 101\nhandshakes_each = 7\n"), 7);
}

#[test]
fn trusted_proxies_are_a_list_also_in_the_environment() {
    let mut sources = sources("");
    sources.environment = vec![("RISER_EDGE_TRUSTED_PROXIES".into(), "10.0.0.0/8, ::1".into())];
    let trusted = Settings::read(&sources).expect("good settings").edge.trusted_proxies;
    assert_eq!(trusted.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
}

#[test]
fn a_bad_option_is_named_with_its_line_and_its_remedy() {
    for (file, text) in [
        ("[edge]\n\nlisten = 8080\n", "riser.toml line 3: edge.listen: a string in quotes is needed, not a number"),
        (
            "[edge]\nlisten = \"8080\"\n",
            "riser.toml line 2: edge.listen: an address and a port are needed: 0.0.0.0:8080, [::]:8080",
        ),
        (
            "[edge]\nheartbeet = \"1s\"\n",
            "riser.toml line 2: there is no option edge.heartbeet; the nearest is edge.heartbeat",
        ),
        ("[egde]\n", "riser.toml line 1: there is no section [egde]; the nearest is edge"),
        ("[edge]\nxyzzyxyzzy = 1\n", "riser.toml line 2: there is no option edge.xyzzyxyzzy"),
        ("edge = 1\n", "riser.toml line 1: edge is a section: [edge]"),
        (
            "[edge]\nheartbeat = \"20\"\n",
            "riser.toml line 2: edge.heartbeat: a time is a whole number and a unit, ms, s, m, h or d: 500ms, 20s",
        ),
        ("[edge]\nheartbeat = \"20m\"\n", "riser.toml line 2: edge.heartbeat: not between 100ms and 10m"),
        (
            "[edge]\nsend_buffer = \"64 KB\"\n",
            "riser.toml line 2: edge.send_buffer: a number and a unit, B, KiB, MiB, GiB or TiB: 64 KiB",
        ),
        (
            "[edge]\nsend_buffer = \"1 KiB\"\n",
            "riser.toml line 2: edge.send_buffer: not between 4096 and 4194304 bytes",
        ),
        ("[edge]\nhandshakes = 0\n", "riser.toml line 2: edge.handshakes: a whole number from 1 to 1000000 is needed"),
        (
            "[edge]\nhandshakes = 1.5\n",
            "riser.toml line 2: edge.handshakes: a whole number without quotes is needed, not a fraction",
        ),
        (
            "[edge]\ntrusted_proxies = [\"::1\", \"10.0.0.1/8\"]\n",
            "riser.toml line 2: edge.trusted_proxies: the address has bits behind the prefix: the range begins at 10.0.0.0/8",
        ),
        (
            "[edge]\ntrusted_proxies = [\"lb.example\"]\n",
            "riser.toml line 2: edge.trusted_proxies: not a range of addresses, such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32",
        ),
        (
            "[edge]\nid = \"a.b\"\n",
            "riser.toml line 2: edge.id: not an edge name: 1 to 64 of A-Z, a-z, 0-9, _ and -, first a letter or digit",
        ),
        (
            "[edge]\ndrain_window = \"50s\"\n",
            "the default: edge.grace: it must be at least 15s more than edge.drain_window",
        ),
        ("[tls]\ncert_file = \"a\"\n", "tls.cert_file and tls.key_file go together: set both or neither"),
        ("[nats]\nkey_file = \"a\"\n", "nats.cert_file and nats.key_file go together: set both or neither"),
        ("[redis]\ncert_file = \"a\"\n", "redis.cert_file and redis.key_file go together: set both or neither"),
        (
            "[redis]\ncert_file = \"a\"\nkey_file = \"b\"\n",
            "redis.cert_file needs TLS: name servers with rediss://, or redis.ca_file",
        ),
        ("[nats]\nmonitors = [\"https://a:1\"]\n", "riser.toml line 2: nats.monitors: http://host:port is needed"),
        (
            "[nats]\nservers = \"nats://a:1\"\n",
            "riser.toml line 2: nats.servers: a list of strings is needed, not a string",
        ),
        (
            "[nats]\nservers = [1]\n",
            "riser.toml line 2: nats.servers: a list of strings is needed, and a number is in it",
        ),
        ("[nats]\nservers = []\n", "riser.toml line 2: nats.servers: at least one server is needed"),
        ("[nats]\nuser = \"a\"\n", "nats.user needs nats.password_file"),
        (
            "[redis]\nserver = \"redis://a:1\"\nsentinels = [\"redis://b:1\"]\n",
            "riser.toml line 3: redis.sentinels: redis.server is set as well: choose one",
        ),
        ("[redis]\nsentinels = [\"redis://b:1\"]\n", "redis.sentinels needs redis.master: what they call the master"),
        ("[redis]\nmaster = \"m\"\n", "redis.master needs redis.sentinels"),
        (
            "[redis]\nserver = \"http://b:1\"\n",
            "riser.toml line 2: redis.server: redis://host:port or rediss://host:port is needed",
        ),
        ("[redis]\nsentinel_user = \"a\"\n", "redis.sentinel_user needs redis.sentinel_password_file"),
        ("[log]\nformat = \"xml\"\n", "riser.toml line 2: log.format: text or json is needed"),
        (
            "[log]\nlevel = \"riser=loud\"\n",
            "riser.toml line 2: log.level: not a log filter: info, or warn,riser_edge=debug",
        ),
    ] {
        assert_eq!(refused(file), text, "{file}");
    }
    let broken = refused("[edge]\nid = \"a\nlisten = 1\n");
    assert!(broken.starts_with("riser.toml line 2: ") && !broken.contains('\n'), "{broken}");
    let twice = refused("[edge]\nid = \"a\"\nid = \"b\"\n");
    assert!(twice.starts_with("riser.toml line 3: "), "{twice}");
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let of = |environment: &[(&str, &str)], flags: &[&str]| {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let sources = Sources {
            environment: environment.iter().map(pair).collect(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            machine: "m".into(),
            ..Sources::default()
        };
        Settings::read(&sources).err().expect("a refusal").to_string()
    };
    assert_eq!(
        of(&[("RISER_EDGE_LISTENS", "x")], &[]),
        "there is no option RISER_EDGE_LISTENS; the nearest is RISER_EDGE_LISTEN"
    );
    assert_eq!(
        of(&[("RISER_EDGE_HELLO", "1")], &[]),
        "RISER_EDGE_HELLO: edge.hello: a time is a whole number and a unit, ms, s, m, h or d: 500ms, 20s"
    );
    assert_eq!(
        of(&[], &["edge.hello=1"]),
        "--set: edge.hello: a time is a whole number and a unit, ms, s, m, h or d: 500ms, 20s"
    );
    assert_eq!(of(&[], &["edge.hullo=1"]), "--set: there is no option edge.hullo; the nearest is edge.hello");
    assert_eq!(of(&[], &["hello"]), "--set: not section.key=value");
}

#[test]
fn secrets_come_from_files_and_variables_and_are_never_repeated() {
    let folder = std::env::temp_dir().join(format!("riser-config-{}-{:x}", std::process::id(), fastrand::u64(..)));
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("password"), "hunter2\n").expect("a file");
    std::fs::write(folder.join("empty"), "\n").expect("a file");
    let of = |nats: &str, variable: Option<&str>| {
        let environment = variable.map(|value| ("RISER_NATS_PASSWORD".to_owned(), value.to_owned()));
        let file = Some((folder.join("riser.toml"), format!("[nats]\nuser = \"u\"\n{nats}")));
        Settings::read(&Sources {
            file,
            environment: environment.into_iter().collect(),
            machine: "m".into(),
            flags: vec![],
        })
    };
    for (file, variable) in [("password_file = \"password\"\n", None), ("", Some("hunter2"))] {
        let settings = of(file, variable).expect("good settings");
        assert!(matches!(&settings.nats.auth, NatsAuth::User { password, .. } if password == "hunter2"));
        assert!(!format!("{:?}", settings.nats).contains("hunter2"));
    }
    let why = |file: &str, variable| of(file, variable).err().expect("a refusal");
    let both = why("password_file = \"password\"\n", Some("hunter2")).to_string();
    assert_eq!(both, "RISER_NATS_PASSWORD: nats.password: nats.password_file is set as well: choose one");
    assert!(matches!(why("password_file = \"missing\"\n", None), ConfigError::Unreadable(_)));
    assert!(matches!(why("password_file = \"empty\"\n", None), ConfigError::Bad(_)));
    let inside = why("password = \"hunter2\"\n", None).to_string();
    assert!(inside.ends_with("nats.password is a secret: set nats.password_file, or the variable RISER_NATS_PASSWORD"));
    for text in [
        both,
        inside,
        refused("[nats]\nservers = [\"nats://u:hunter2@a:1\"]\n"),
        refused("[nats]\ntoken = [\"hunter2\"]\n"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    std::fs::remove_dir_all(&folder).expect("the folder");
}

#[test]
fn a_machines_name_becomes_an_edges() {
    let long = "a".repeat(80);
    for (machine, id) in [
        ("node-7.example", Some("node-7-example")),
        ("_7", Some("7")),
        ("küche", Some("k-che")),
        (long.as_str(), Some(&long[..64])),
        ("", None),
        ("...", None),
    ] {
        assert_eq!(id_of_machine(machine).as_ref().map(EdgeId::as_str), id, "{machine}");
    }
}
