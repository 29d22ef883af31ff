//! Generators as the program sees them: processes that are told what to do, and whose cost is read.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::process;
use crate::progress::Progress;
use crate::worker::add;
use crate::worker::order::{Job, Order, Report, Schedule, Told};

/// Most connections of one generator. Less, when the limit of open files is lower.
const CONNECTIONS: u32 = 8_000;
/// Files that a generator has open besides.
const OTHER_FILES: u64 = 64;
/// How long a generator may say nothing while it works: schedules are far shorter.
const SILENCE: Duration = Duration::from_secs(600);

/// Generators that share one job.
#[derive(Debug)]
pub(crate) struct Fleet {
    workers: Vec<Worker>,
    begun_us: u64,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    pid: u32,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Fleet {
    /// Starts as many generators as the connections need, and opens all connections.
    pub(crate) async fn open(job: Job, progress: &Progress) -> Result<Self> {
        let files = process::raise_files().saturating_sub(OTHER_FILES);
        let most = u32::try_from(files).unwrap_or(u32::MAX).clamp(1, CONNECTIONS);
        let mut fleet = Self { workers: Vec::new(), begun_us: 0 };
        let (mut first, mut left) = (job.first, job.count);
        while left > 0 {
            let count = left.min(most);
            let mut worker = Worker::start()?;
            worker.say(&Order::Open(Box::new(Job { count, first, ..job.clone() }))).await?;
            worker.opened(count, job.count - left, progress).await?;
            fleet.workers.push(worker);
            first += count;
            left -= count;
        }
        fleet.begin()?;
        Ok(fleet)
    }

    /// CPU time is counted from here on.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.begun_us = self.cpu_us()?;
        Ok(())
    }

    /// How many processes it has.
    pub(crate) fn processes(&self) -> usize {
        self.workers.len()
    }

    /// CPU time of all since [`Fleet::begin`].
    pub(crate) fn spent_us(&self) -> Result<u64> {
        Ok(self.cpu_us()?.saturating_sub(self.begun_us))
    }

    fn cpu_us(&self) -> Result<u64> {
        self.workers.iter().map(|worker| process::cpu_us(worker.pid)).sum()
    }

    /// Sends what the schedule says. Only a fleet of one process can: a schedule is one loop.
    pub(crate) async fn go(&mut self, schedule: Schedule) -> Result<()> {
        match self.workers.as_mut_slice() {
            [worker] => worker.do_it(&Order::Go(schedule)).await,
            workers => {
                bail!("{} generators cannot share one schedule: fewer than {CONNECTIONS} senders", workers.len())
            }
        }
    }

    /// Has all do something at once.
    pub(crate) async fn all(&mut self, order: &Order) -> Result<()> {
        for worker in &mut self.workers {
            worker.say(order).await?;
        }
        for worker in &mut self.workers {
            worker.done().await?;
        }
        Ok(())
    }

    /// How many values came.
    pub(crate) async fn values(&mut self) -> Result<u64> {
        let mut sum = 0;
        for worker in &mut self.workers {
            worker.say(&Order::Count).await?;
            match worker.hear().await? {
                Told::Count(values) => sum += values,
                told => bail!("a generator said {told:?} when asked for a count"),
            }
        }
        Ok(sum)
    }

    /// What all counted since the last report.
    pub(crate) async fn report(&mut self) -> Result<Report> {
        let mut sum = Report::default();
        for worker in &mut self.workers {
            worker.say(&Order::Report).await?;
            match worker.hear().await? {
                Told::Report(report) => add(&mut sum, *report),
                told => bail!("a generator said {told:?} when asked for a report"),
            }
        }
        Ok(sum)
    }
}

impl Worker {
    fn start() -> Result<Self> {
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let mut child = Command::new(program)
            .arg("generate")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start a generator")?;
        let pid = child.id().context("a generator ended at once")?;
        let orders = child.stdin.take().context("a generator without input")?;
        let answers = child.stdout.take().context("a generator without output")?;
        Ok(Self { child, pid, orders, answers: BufReader::new(answers).lines() })
    }

    async fn say(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await.context("a generator takes no orders")
    }

    async fn hear(&mut self) -> Result<Told> {
        let line = timeout(SILENCE, self.answers.next_line()).await.context("a generator says nothing")??;
        let Some(line) = line else {
            let status = self.child.try_wait().ok().flatten();
            bail!("a generator has ended: {status:?}");
        };
        match serde_json::from_str(&line)? {
            Told::Failed(why) => bail!("a generator cannot go on: {why}"),
            told => Ok(told),
        }
    }

    async fn opened(&mut self, count: u32, before: u32, progress: &Progress) -> Result<()> {
        loop {
            match self.hear().await? {
                Told::Opened(open) => {
                    progress.note(&format!("{} connections open", before + open));
                    if open == count {
                        return Ok(());
                    }
                }
                told => bail!("a generator said {told:?} instead of opening"),
            }
        }
    }

    async fn done(&mut self) -> Result<()> {
        loop {
            match self.hear().await? {
                Told::Opened(_) => {}
                Told::Done => return Ok(()),
                told => bail!("a generator said {told:?} instead of being done"),
            }
        }
    }

    async fn do_it(&mut self, order: &Order) -> Result<()> {
        self.say(order).await?;
        self.done().await
    }
}
