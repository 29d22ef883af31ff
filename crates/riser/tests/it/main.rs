//! The built binary, as users and scripts meet it.

mod cluster;
mod control;
mod exchange;
mod tools;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How long anything here may take, on a machine that is busy with other things.
const WAIT: Duration = Duration::from_secs(60);
/// Lines of a program that wait to be read.
const LINES: usize = 65_536;

/// A running `riser`. It does not outlive the test.
struct Riser {
    child: Child,
    lines: Receiver<String>,
}

/// How a `riser` ended.
struct Ended {
    status: ExitStatus,
    stderr: String,
}

fn riser(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_riser"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["RISER_URL", "RISER_KEY", "RUST_LOG", "RISER_CONTROL_URL", "RISER_CONTROL_CREDENTIAL_FILE"] {
        command.env_remove(name);
    }
    command
}

impl Riser {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let stdout = child.stdout.take().expect("it is piped");
        Self { child, lines: lines(stdout) }
    }

    /// The next line of its standard output; none at its end.
    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(WAIT) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing within {WAIT:?}"),
        }
    }

    /// Reads lines up to the first that this is true of.
    fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.line().expect("a line that is waited for");
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Reads standard error up to the first line that holds this.
    fn says(&mut self, wanted: &str) {
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        let mut line = Vec::new();
        // Byte by byte: what follows is for whoever reads it next.
        while !(line.ends_with(b"\n") && String::from_utf8_lossy(&line).contains(wanted)) {
            if line.ends_with(b"\n") {
                line.clear();
            }
            let mut byte = [0];
            stderr.read_exact(&mut byte).expect("a line that is waited for");
            line.push(byte[0]);
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Waits for its end by itself.
    fn ended(mut self) -> Ended {
        while self.line().is_some() {}
        let status = self.child.wait().expect("it was started");
        let mut stderr = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("UTF-8");
        Ended { status, stderr }
    }
}

impl Drop for Riser {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = sync_channel(LINES);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A cluster of `riser dev` that serves, and what its ready file says.
struct Dev {
    riser: Riser,
    ready: Value,
    file: PathBuf,
    // The ready file's folder, which goes with the test.
    _folder: Folder,
}

impl Dev {
    fn start(args: &[&str]) -> Self {
        let folder = Folder::new();
        let file = folder.0.join("ready.json");
        let mut all = vec!["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        all.extend(args);
        if !args.contains(&"--drain-window") {
            all.extend(["--drain-window", "0s"]);
        }
        let mut command = riser(&all);
        command.arg("--ready-file").arg(&file);
        let riser = Riser::start(command);
        // The last line of what it says, after the file was written.
        riser.until(|line| line.starts_with("Ctrl-C"));
        let text = std::fs::read_to_string(&file).expect("the ready file");
        Self { riser, ready: serde_json::from_str(&text).expect("JSON"), file, _folder: folder }
    }

    fn text(&self, name: &str) -> String {
        self.ready[name].as_str().expect("a text").to_owned()
    }

    fn url(&self, name: &str, edge: usize) -> String {
        self.ready[name][edge].as_str().expect("a URL").to_owned()
    }

    /// A tool that is pointed at this cluster.
    fn tool(&self, args: &[&str]) -> Command {
        let mut command = riser(args);
        command.env("RISER_URL", self.url("http", 0)).env("RISER_KEY", self.text("api_key"));
        command
    }

    /// Asks an admin port; the answer's status and body.
    fn admin(&self, edge: usize, line: &str) -> (u16, String) {
        http(&self.url("admin", edge), line, None, "")
    }
}

/// Asks a port; the answer's status and body.
fn http(url: &str, line: &str, key: Option<&str>, body: &str) -> (u16, String) {
    let at = url.strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(at).expect("a port");
    stream.set_read_timeout(Some(WAIT)).expect("a timeout");
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}Content-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("riser-test-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind in a temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The URL of a port on which nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}
