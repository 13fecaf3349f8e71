//! A process that is killed, paused and started again, with its log. It dies with the program that started it, also when
//! that is killed itself: `setpriv` asks the kernel for it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How to start it.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Where stderr goes, and stdout unless `journal` is given; appended to.
    pub(crate) log: PathBuf,
    /// Where stdout goes.
    pub(crate) journal: Option<PathBuf>,
}

/// A process, or the place of one.
#[derive(Debug)]
pub(crate) struct Process {
    launch: Launch,
    child: Option<Child>,
    input: Option<ChildStdin>,
    paused: bool,
}

fn append(path: &PathBuf) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

impl Process {
    /// Nothing runs yet.
    pub(crate) fn new(launch: Launch) -> Process {
        Process { launch, child: None, input: None, paused: false }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.launch.name
    }

    /// What it is from its next start on.
    pub(crate) fn set_program(&mut self, program: PathBuf) {
        self.launch.program = program;
    }

    /// The value that it has from its next start on for a flag that it has already.
    pub(crate) fn set_flag(&mut self, flag: &str, value: &str) {
        let begin = format!("--{flag}=");
        if let Some(argument) = self.launch.arguments.iter_mut().find(|argument| argument.starts_with(&begin)) {
            *argument = format!("{begin}{value}");
        }
    }

    /// The value of a flag.
    pub(crate) fn flag(&self, flag: &str) -> Option<&str> {
        let begin = format!("--{flag}=");
        self.launch.arguments.iter().find_map(|argument| argument.strip_prefix(&begin))
    }

    /// Starts it; answers its id. It must be called by the main thread: the process dies with the thread that started it.
    pub(crate) fn start(&mut self) -> u32 {
        let log = append(&self.launch.log);
        let output = self.launch.journal.as_ref().map_or_else(|| log.try_clone().unwrap(), append);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.launch.program).args(&self.launch.arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.launch.environment.iter().cloned());
        let mut child = command.stdin(Stdio::piped()).stdout(output).stderr(log).spawn().unwrap();
        self.input = child.stdin.take();
        let pid = child.id();
        self.child = Some(child);
        self.paused = false;
        pid
    }

    /// Its id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it runs and is not paused.
    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// Whether it was not even started.
    pub(crate) fn is_down(&self) -> bool {
        self.child.is_none()
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.input = None;
        self.paused = false;
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.paused = true;
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::SIGCONT);
        self.paused = false;
    }

    /// How it ended, if nobody here ended it.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        self.input = None;
        Some(status)
    }

    /// A line on its standard input. One that does not read it at the moment gets it later; a dead one never.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            let _ = writeln!(input, "{line}");
        }
    }

    /// Adds a line to what it wrote.
    pub(crate) fn note(&self, line: &str) {
        if let Some(journal) = &self.launch.journal {
            writeln!(append(journal), "{line}").unwrap();
        }
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.launch.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
