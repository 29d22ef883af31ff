//! Files that are read again when they change. What cannot be used is refused: the log, a metric and `/readyz` say so, and
//! what was read before stays.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::config::ConfigError;

/// Between two looks at files. With it a revoked key is gone within seconds.
const LOOK: Duration = Duration::from_secs(2);

/// What was read, and from which files.
pub(crate) struct Loaded<T> {
    pub(crate) value: T,
    pub(crate) files: Vec<PathBuf>,
}

/// What may be read again.
pub(crate) trait Source: Send + Sync + 'static {
    type Value: PartialEq + Send + Sync + 'static;

    /// What it is called in logs, in metrics and on `/readyz`.
    const NAME: &'static str;

    /// Reads all of it.
    fn load(&self) -> Result<Loaded<Self::Value>, ConfigError>;
}

/// What two looks at a file tell apart. A write that keeps all of it within the clock's smallest step goes unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    /// Not looked at yet.
    Unseen,
    /// It cannot be looked at.
    Missing,
    /// Its number, size and time of change.
    Seen(u64, u64, i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Self {
        let seen = |data: fs::Metadata| Self::Seen(data.ino(), data.size(), data.mtime(), data.mtime_nsec());
        fs::metadata(path).map_or(Self::Missing, seen)
    }
}

type Stamps = Vec<(PathBuf, Stamp)>;

/// A value that follows its files.
pub(super) struct Followed<S: Source> {
    source: Arc<S>,
    /// As they were before they were read last.
    stamps: Stamps,
    value: watch::Sender<Arc<S::Value>>,
    trouble: Trouble,
    outcomes: IntCounterVec,
}

/// Why the files as they are now are not used; none when they are.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// A line for `/readyz`, if there is anything to say.
    pub(super) fn note(&self, name: &str) -> String {
        let refused = self.0.lock();
        refused.as_ref().map_or_else(String::new, |why| format!("{name}: what was read before is used: {why}\n"))
    }
}

impl<S: Source> Followed<S> {
    /// Reads the files for the first time.
    pub(super) fn open(source: S, outcomes: &IntCounterVec) -> Result<Self, ConfigError> {
        let Loaded { value, files } = source.load()?;
        Ok(Self {
            source: Arc::new(source),
            // So that the first look reads again what may have changed meanwhile.
            stamps: files.into_iter().map(|file| (file, Stamp::Unseen)).collect(),
            value: watch::Sender::new(Arc::new(value)),
            trouble: Trouble::default(),
            outcomes: outcomes.clone(),
        })
    }

    /// What they hold, now and later.
    pub(super) fn value(&self) -> watch::Receiver<Arc<S::Value>> {
        self.value.subscribe()
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Looks at the files again and again, until it is dropped.
    pub(super) async fn follow(mut self) {
        loop {
            sleep(LOOK).await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let (source, known) = (self.source.clone(), self.stamps.clone());
        let read = spawn_blocking(move || {
            let now: Stamps = known.iter().map(|(path, _)| (path.clone(), Stamp::of(path))).collect();
            (now != known).then(|| (now, source.load()))
        });
        if let Ok(Some((stamps, loaded))) = read.await {
            self.stamps = stamps;
            self.take(loaded);
        }
    }

    fn take(&mut self, loaded: Result<Loaded<S::Value>, ConfigError>) {
        let Loaded { value, files } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(what = S::NAME, %error, "the changed file is refused, and what was read before stays");
                *self.trouble.0.lock() = Some(error.to_string());
                self.outcomes.with_label_values(&[S::NAME, "refused"]).inc();
                return;
            }
        };
        let stamp_of = |file: &PathBuf| self.stamps.iter().find(|(known, _)| known == file).map(|(_, stamp)| *stamp);
        self.stamps = files.iter().map(|file| (file.clone(), stamp_of(file).unwrap_or(Stamp::Unseen))).collect();
        let was_refused = self.trouble.0.lock().take().is_some();
        let changed = self.value.send_if_modified(|now| {
            let changed = **now != value;
            if changed {
                *now = Arc::new(value);
            }
            changed
        });
        if changed || was_refused {
            tracing::info!(what = S::NAME, changed, "the changed file was taken");
            self.outcomes.with_label_values(&[S::NAME, "taken"]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    struct Number(PathBuf);

    impl Source for Number {
        type Value = u32;
        const NAME: &'static str = "number";

        fn load(&self) -> Result<Loaded<u32>, ConfigError> {
            let text = fs::read_to_string(&self.0).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
            let value = text.trim().parse().map_err(|_| ConfigError::bad("no number"))?;
            Ok(Loaded { value, files: vec![self.0.clone()] })
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_and_a_broken_one_is_not() {
        let file = std::env::temp_dir().join(format!("riser-reload-{}-{:x}", std::process::id(), fastrand::u64(..)));
        let write = |text: &str| {
            // As a rename, so that it is another file whatever the clock says.
            let beside = file.with_extension("new");
            fs::write(&beside, text).and_then(|()| fs::rename(&beside, &file)).expect("a file");
        };
        let outcomes = IntCounterVec::new(Opts::new("n", "n"), &["what", "outcome"]).expect("a name");
        let counted = |outcome: &str| outcomes.with_label_values(&["number", outcome]).get();
        assert!(Followed::open(Number(file.clone()), &outcomes).is_err());
        write("1");
        let mut followed = Followed::open(Number(file.clone()), &outcomes).expect("a number");
        let (value, trouble) = (followed.value(), followed.trouble());
        followed.look().await;
        assert_eq!((**value.borrow(), counted("taken"), trouble.note("n")), (1, 0, String::new()));
        write("2");
        followed.look().await;
        assert_eq!((**value.borrow(), counted("taken")), (2, 1));
        for broken in ["two", "three"] {
            write(broken);
            followed.look().await;
        }
        assert_eq!((**value.borrow(), counted("refused")), (2, 2));
        assert_eq!(trouble.note("n"), "n: what was read before is used: no number\n");
        followed.look().await;
        assert_eq!(counted("refused"), 2, "what is broken is read once");
        fs::remove_file(&file).expect("the file");
        followed.look().await;
        assert_eq!((**value.borrow(), counted("refused")), (2, 3));
        write("2");
        followed.look().await;
        assert_eq!((**value.borrow(), counted("taken"), trouble.note("n")), (2, 2, String::new()));
        fs::remove_file(&file).expect("the file");
    }
}
