//! One process under test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use super::wait::DEADLINE;

/// Lines of output that may wait for the test; beyond, the process waits in its next write.
const LINES: usize = 4096;

/// Marks every process of a test, and every process that one starts; not a setting of ours, which `demo` keeps from its own.
const MARK: &str = "OF_TEST_FOLDER";

/// The pause between two looks at whether a process has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

/// A process in a group of its own, killed with all its children when the value goes away.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; `folder` takes its log and stands for its home. Settings of the surrounding environment do not
    /// reach it.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let log = unused(folder, name);
        let stderr = fs::File::create(&log).expect("a log file");
        let ours = |name: &str| name.starts_with("SWARM_") || name.starts_with("OTEL_");
        let inherited = std::env::vars().map(|(name, _)| name).filter(|name| ours(name));
        let given: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        inherited.filter(|name| !given.iter().any(|given| given == name.as_str())).for_each(|name| {
            command.env_remove(name);
        });
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            if !given.iter().any(|given| given == name) {
                command.env(name, folder);
            }
        }
        command.env(MARK, mark(folder));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = child.stdout.take().expect("its stdout");
        let (sender, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { name: name.to_string(), child, lines, seen: Vec::new(), log }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes `text` to its stdin and closes it.
    pub fn input(&mut self, text: &str) {
        use std::io::Write;
        let mut stdin = self.child.stdin.take().expect("its stdin, once");
        stdin.write_all(text.as_bytes()).expect("it reads its stdin");
    }

    /// The next line of its stdout, without its end; `None` at the end.
    ///
    /// # Panics
    /// If neither comes within [`DEADLINE`].
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => {
                self.seen.push(line);
                self.seen.last().map(|line| line.trim_end_matches('\n').to_string())
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} says nothing for {DEADLINE:?}\n{}", self.name, self.story()),
        }
    }

    /// The next JSON object on its stdout; `None` at the end.
    ///
    /// # Panics
    /// If a line is no JSON object with an event, or nothing comes.
    pub fn any_event(&mut self) -> Option<Value> {
        let line = self.line()?;
        let event: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{} prints {line:?}, no JSON: {error}", self.name));
        assert!(event["event"].is_string(), "{} prints {line:?}, no event", self.name);
        Some(event)
    }

    /// The next event of that kind; others are passed over.
    ///
    /// # Panics
    /// If it does not come within [`DEADLINE`].
    pub fn event(&mut self, kind: &str) -> Value {
        loop {
            match self.any_event() {
                Some(event) if event["event"] == kind => return event,
                Some(_) => {}
                None => panic!("{} ended before it said \"{kind}\"\n{}", self.name, self.story()),
            }
        }
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("its end");
    }

    /// Freezes it: its connections stay open and silent.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end, as a service manager does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it and all of its group to end, as Ctrl-C on a terminal does.
    pub fn interrupt(&self) {
        let group = Pid::from_raw(self.child.id() as i32).expect("its id");
        let _ = kill_process_group(group, Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("its id");
        // It may have ended by itself; whoever cares looks at how.
        let _ = kill_process(pid, signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`DEADLINE`].
    pub fn exit(&mut self) -> Exit {
        let start = Instant::now();
        let status = loop {
            self.seen.extend(self.lines.try_iter());
            if let Some(status) = self.child.try_wait().expect("its status") {
                break status;
            }
            assert!(start.elapsed() < DEADLINE, "{} does not end within {DEADLINE:?}\n{}", self.name, self.story());
            std::thread::sleep(PAUSE);
        };
        // A child of its own may hold its stdout open.
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            self.seen.push(line);
        }
        Exit { code: status.code(), signal: status.signal(), stdout: self.seen.concat(), stderr: self.stderr() }
    }

    /// What it has written to stderr.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The part of its resident memory that belongs to no file, in bytes: heap and stacks.
    pub fn anonymous_memory(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status in /proc");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("its memory");
        let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number of kB");
        kib * 1024
    }

    /// How long it has computed, in clock ticks of usually 10 ms.
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its stat in /proc");
        let after_name = stat.rsplit(')').next().expect("fields behind its name");
        after_name.split_whitespace().nth(11).and_then(|ticks| ticks.parse().ok()).expect("its user time")
    }

    /// How many files and connections it has open.
    pub fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("its files in /proc").count()
    }

    /// What a person needs to see when a test fails.
    fn story(&self) -> String {
        format!("--- stdout ---\n{}--- stderr ---\n{}", self.seen.concat(), self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            // All of the group may be gone.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("=== {} ===\n{}", self.name, self.story());
        }
    }
}

/// A file name that no other process of the folder uses.
fn unused(folder: &Path, name: &str) -> PathBuf {
    let candidates = (0..).map(|count| folder.join(format!("{name}-{count}.log")));
    candidates.into_iter().find(|path| !path.exists()).expect("an unused name")
}

fn mark(folder: &Path) -> String {
    format!("{}", folder.display())
}

/// The processes that were started with `folder`, or by one that was, and still run.
pub fn leftovers(folder: &Path) -> Vec<u32> {
    let needle = format!("{MARK}={}\0", mark(folder)).into_bytes();
    let marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(needle.len()).any(|window| window == needle)
    };
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(marked).collect()
}
