//! The scripts: one file for each operation, and what several of them need before it.

use std::sync::LazyLock;

use redis::Script as Text;

/// A script.
pub(super) struct Script {
    pub(super) name: &'static str,
    parts: &'static [&'static str],
    text: LazyLock<(String, String)>,
}

impl Script {
    /// What Redis runs.
    pub(super) fn code(&self) -> &str {
        &self.text.0
    }

    /// What Redis calls it.
    pub(super) fn hash(&self) -> &str {
        &self.text.1
    }
}

macro_rules! scripts {
    ($($name:ident = $file:literal after [$($before:literal),*];)*) => {
        $(
            pub(super) static $name: Script = Script {
                name: $file,
                parts: &[$(include_str!(concat!("lua/", $before, ".lua")),)* include_str!(concat!("lua/", $file, ".lua"))],
                text: LazyLock::new(|| {
                    let code = $name.parts.join("\n");
                    let hash = Text::new(&code).get_hash().to_owned();
                    (code, hash)
                }),
            };
        )*
    };
}

scripts! {
    MEND = "mend" after [];
    ACQUIRE = "acquire" after ["head"];
    APPLY = "apply" after ["head"];
    READ = "read" after [];
    ERASE = "erase" after [];
    RELEASE = "release" after ["head"];
    RESTORE = "restore" after ["head"];
    SWEEP = "sweep" after ["head"];
    DELIST = "delist" after [];
    DRAIN = "drain" after ["lease"];
    ENDED = "ended" after ["lease"];
    FORGET = "forget" after ["lease"];
    RENEW = "renew" after ["lease"];
    LOOK = "look" after ["head", "shelf"];
    COMMIT = "commit" after ["head", "shelf"];
    LATEST = "latest" after ["head", "shelf"];
    OPEN = "open" after [];
    EVICT = "evict" after [];
    OPENED = "opened" after ["sums"];
    ROOM = "room" after ["sums"];
    OVERDUE = "overdue" after [];
    OPEN_STREAM = "open_stream" after [];
    SAVE = "save" after ["head"];
    LOAD = "load" after [];
    CLOSE_STREAM = "close_stream" after [];
}
