//! Every name that may be wrong, and how.

use riser_core::mutants::{Side, confuse};

use super::pair::Pair;

/// How a tenant is wrong in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is not there: the same word stands there for all.
    Dropped,
    /// The other one is there.
    Swapped,
}

/// One name that is wrong in one way.
pub(super) struct Mutant {
    pub(super) name: String,
    /// Only the list of all streams shows it.
    pub(super) is_of_lists: bool,
    confuse: Box<dyn Fn(&Pair) + Send + Sync>,
}

impl Mutant {
    /// Every mutant there is.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![];
        add(&mut all, "subject", &riser_bus::Naming::WRITTEN, Side::Written);
        add(&mut all, "subject", &riser_bus::Naming::READ, Side::Read);
        add(&mut all, "key", &riser_registry::redis::Naming::WRITTEN, Side::Written);
        add(&mut all, "key", &riser_registry::redis::Naming::READ, Side::Read);
        all
    }

    /// Makes the names of two tenants wrong.
    pub(super) fn apply(&self, pair: &Pair) {
        (self.confuse)(pair);
    }
}

fn add<N>(all: &mut Vec<Mutant>, of: &str, namings: &[N], side: Side)
where
    N: std::fmt::Debug + Copy + Send + Sync + 'static,
{
    for &naming in namings {
        for how in [How::Dropped, How::Swapped] {
            let put = move |pair: &Pair| {
                let [a, b] = [0, 1].map(|whose| pair.of[whose].id.clone());
                let nobody: riser_core::TenantId = format!("x{}", pair.run).parse().expect("a tenant name");
                let (for_a, for_b) =
                    if how == How::Dropped { (nobody.clone(), nobody) } else { (b.clone(), a.clone()) };
                confuse(naming, side, a, for_a);
                confuse(naming, side, b, for_b);
            };
            let name = format!("{of} {naming:?} {side:?} {how:?}");
            let is_of_lists = name.starts_with("subject EventStream Read");
            all.push(Mutant { name, is_of_lists, confuse: Box::new(put) });
        }
    }
}

/// The modules that make names, and how many names they have.
const MODULES: [(&str, &str, usize); 2] = [
    (
        "riser-bus/src/subject.rs",
        include_str!("../../../../riser-bus/src/subject.rs"),
        riser_bus::Naming::WRITTEN.len(),
    ),
    (
        "riser-registry/src/redis/keys.rs",
        include_str!("../../../../riser-registry/src/redis/keys.rs"),
        riser_registry::redis::Naming::WRITTEN.len(),
    ),
];
/// What names begin with, and what nobody else may write.
const BEGINNINGS: [&str; 5] = ["\"riser.v1.", "\"riser:{", "\"riser:*", "\"$KV.", "\"riser-ev-"];

/// A function whose tenant nobody could miss, as it says itself.
const UNSEEN: [&str; 1] = ["id(&self, cmd: &CommandId)"];

/// A function up to its end.
fn whole(text: &str) -> &str {
    let ends = ["\n}\n", "\n    }\n\n", "\n    }\n}\n"].into_iter().filter_map(|end| text.find(end));
    ends.min().map_or(text, |end| &text[..end])
}

/// Checks that each function of the modules that has to do with a tenant is one of the mutants', and that nobody else makes
/// names.
pub(super) fn check_sources() {
    for (module, source, count) in MODULES {
        let (_, after) = source.split_once("pub enum Naming {").expect("the names");
        let (declared, code) = after.split_once("\n}\n").expect("their end");
        let variants: Vec<_> = declared.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
        assert_eq!(variants.len(), count, "{module}: all names are written");
        for variant in variants {
            assert!(code.contains(&format!("Naming::{variant}")), "{module} does not use {variant}");
        }
        let functions = code.split("fn ").skip(1).map(whole);
        let exempt = |function: &&str| UNSEEN.iter().any(|name| function.starts_with(name));
        let wrong: Vec<_> = functions.filter(|function| !exempt(function) && passes_by(function)).collect();
        assert!(wrong.is_empty(), "{module} has a tenant in a name that no mutant has: {wrong:#?}");
    }
    let crates = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for folder in ["riser-bus/src", "riser-registry/src", "riser-edge/src", "riser/src"] {
        check_folder(&crates.join(folder));
    }
    check_features(crates);
}

/// Checks that no program has mutants in it: only these tests ask for them.
fn check_features(crates: &std::path::Path) {
    for entry in std::fs::read_dir(crates).expect("a folder") {
        let manifest = entry.expect("an entry").path().join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        let (for_all, _for_tests) = text.split_once("[dev-dependencies]").unwrap_or((&text, ""));
        let asks = for_all.lines().find(|line| line.contains("mutants") && line.contains("workspace"));
        assert_eq!(asks, None, "{}", manifest.display());
    }
}

/// Whether a function puts a tenant into a text, or reads one from there, past the functions that mutants change.
fn passes_by(function: &str) -> bool {
    let makes = ["format!(", "write!("].iter().any(|makes| function.contains(makes));
    let reads = function.contains(".parse()");
    let has_tenant = ["tenant", "key)", "Tokens("].iter().any(|word| function.contains(word));
    has_tenant && (makes || reads) && !function.contains("Naming::") && !function.contains("naming")
}

fn check_folder(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.display().to_string();
        if path.is_dir() {
            check_folder(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !MODULES.iter().any(|(module, ..)| name.ends_with(module))
        {
            let source = std::fs::read_to_string(&path).expect("a source");
            // Tests write names to see that they are those.
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = name.ends_with("tests.rs") || name.contains("/tests/") || name.contains("suite");
            let found = BEGINNINGS.iter().find(|begin| code.contains(**begin)).filter(|_| !is_test);
            assert_eq!(found, None, "{name} makes names of its own");
        }
    }
}
