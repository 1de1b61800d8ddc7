//! What is done with a notification: printing it, or a command. One at a time, on a thread of its own.
//!
//! Nothing here knows the connection: an acknowledgement goes back to whoever handed the job over.

use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use crossbeam_channel::{Receiver, Sender, bounded};
use payrelay::thread::{self, JoinOnDrop};
use serde_json::json;

use super::acknowledgement::Acknowledgement;
use super::forward::HttpForwarder;
use crate::cli::text::{one_line, readable};
use crate::client::frames::Message;

/// How notifications are handled.
#[derive(Clone, Debug)]
pub enum Handling {
    /// Print it on standard output.
    Print {
        form: Form,
        /// And refuse it.
        nack: bool,
    },
    /// Run `sh -c` with the body on standard input.
    Exec(String),
    /// Post it on.
    Forward(HttpForwarder),
}

/// What is printed of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line about it, its head for people, its body.
    Whole,
    /// Its body.
    Body,
    /// All of it as JSON, on one line.
    Json,
}

/// One notification to handle.
#[derive(Debug)]
pub struct Job {
    /// Which connection it came by.
    pub connection: u64,
    /// The notification.
    pub message: Message,
}

/// What came of a [`Job`].
#[derive(Debug)]
pub struct Done {
    /// Which connection it came by.
    pub connection: u64,
    /// The notification's id.
    pub id: String,
    /// What to tell the relay; an error: standard output is gone, and nothing should be told.
    pub acknowledgement: io::Result<Acknowledgement>,
}

/// The thread that handles notifications. It takes one job at a time; dropping it waits for the one it has.
#[derive(Debug)]
pub struct HandlerThread {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    thread: JoinOnDrop,
}

impl HandlerThread {
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(handling: Handling) -> io::Result<Self> {
        let (jobs, inbox) = bounded::<Job>(1);
        let (tell, done) = bounded(1);
        let thread = thread::spawn("worker", thread::SMALL_STACK_BYTES, move || {
            for job in inbox {
                let acknowledgement = handling.handle(&job.message);
                let done = Done {
                    connection: job.connection,
                    id: job.message.id,
                    acknowledgement,
                };
                if tell.send(done).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs, done, thread })
    }

    /// Hands it a job; only when it has none.
    pub fn take(&self, job: Job) {
        // Full or gone cannot be: it holds one job at most, and lives as long as this handle.
        let _ = self.jobs.try_send(job);
    }

    /// Where its acknowledgements come out.
    pub fn done(&self) -> &Receiver<Done> {
        &self.done
    }

    /// Lets go of it without waiting: the process is about to end, its command may go on.
    pub fn abandon(self) {
        std::mem::forget(self.thread);
    }
}

impl Handling {
    fn handle(&self, message: &Message) -> io::Result<Acknowledgement> {
        match self {
            Self::Print { form, nack } => {
                let stdout = io::stdout();
                let quiet = *form == Form::Body;
                let shown = match form {
                    Form::Json => json(message),
                    _ if stdout.is_terminal() => for_people(message, quiet),
                    _ => for_programs(message, quiet),
                };
                let mut out = stdout.lock();
                out.write_all(&shown)?;
                out.flush()?;
                Ok(if *nack {
                    Acknowledgement::Nack("payrelay listen --nack".into())
                } else {
                    Acknowledgement::Ack
                })
            }
            Self::Exec(command) => Ok(execute(command, message)),
            Self::Forward(forward) => Ok(forward.post(message)),
        }
    }
}

/// The one line about a notification.
pub fn title(message: &Message) -> String {
    let or_none = |text: &str| match text {
        "" => "-".to_owned(),
        some => one_line(some),
    };
    format!(
        "{} route={} event={} try={} verified={} {} bytes",
        one_line(&message.id),
        or_none(&message.route),
        or_none(&message.event),
        or_none(&message.tries),
        or_none(&message.verified),
        message.body.len()
    )
}

/// Readable, and unable to command the terminal.
fn for_people(message: &Message, quiet: bool) -> Vec<u8> {
    let mut shown = String::new();
    if !quiet {
        shown = title(message);
        shown.push('\n');
        for line in message.head.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                shown.push_str("> ");
                shown.push_str(&readable(line));
                shown.push('\n');
            }
        }
    }
    shown.push_str(&readable(&message.body));
    if !shown.ends_with('\n') {
        shown.push('\n');
    }
    shown.into_bytes()
}

/// The exact bytes, and a line end.
fn for_programs(message: &Message, quiet: bool) -> Vec<u8> {
    let mut shown = Vec::with_capacity(message.body.len() + 128);
    if !quiet {
        shown.extend_from_slice(title(message).as_bytes());
        shown.push(b'\n');
    }
    shown.extend_from_slice(&message.body);
    shown.push(b'\n');
    shown
}

/// One line, with the names that doc/api.md has for the same.
fn json(message: &Message) -> Vec<u8> {
    let event = Some(&message.event).filter(|event| !event.is_empty());
    let mut line = json!({
        "id": message.id,
        "route": message.route,
        "verified": message.verified,
        "event": event,
        "at": message.at.parse::<u64>().ok(),
        "tries": message.tries.parse::<u32>().ok(),
        "head": String::from_utf8_lossy(&message.head),
        "body_base64": BASE_64.encode(&message.body),
    })
    .to_string();
    line.push('\n');
    line.into_bytes()
}

fn execute(command: &str, message: &Message) -> Acknowledgement {
    // A variable cannot hold NUL; a spawn that fails for that would refuse the notification for ever.
    let variable = |text: &str| text.replace('\0', "\u{fffd}");
    let child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env("PAYRELAY_ID", variable(&message.id))
        .env("PAYRELAY_ROUTE", variable(&message.route))
        .env("PAYRELAY_EVENT", variable(&message.event))
        .env("PAYRELAY_TRY", variable(&message.tries))
        .env("PAYRELAY_VERIFIED", variable(&message.verified))
        .env("PAYRELAY_AT", variable(&message.at))
        .env(
            "PAYRELAY_HEAD",
            variable(&String::from_utf8_lossy(&message.head)),
        )
        .stdin(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Acknowledgement::refused(&format!("cannot run sh: {error}")),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A command need not read its input; its exit code alone counts.
        let _ = stdin.write_all(&message.body);
    }
    match child.wait() {
        Ok(status) => acknowledgement_of(status),
        Err(error) => Acknowledgement::refused(&format!("cannot wait for sh: {error}")),
    }
}

fn acknowledgement_of(status: ExitStatus) -> Acknowledgement {
    match (status.code(), status.signal()) {
        (Some(0), _) => Acknowledgement::Ack,
        (Some(code), _) => Acknowledgement::Nack(format!("exit {code}")),
        (None, Some(signal)) => Acknowledgement::Nack(format!("signal {signal}")),
        (None, None) => Acknowledgement::Nack("no exit code".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            id: "01A".into(),
            tries: "1".into(),
            route: "/notify/{id}".into(),
            verified: "none".into(),
            event: "e\n1\0".into(),
            at: "17".into(),
            head: b"POST /x HTTP/1.1\r\nA: \x1b\r\n".to_vec(),
            body: b"a\0\xff".to_vec(),
        }
    }

    #[test]
    fn people_see_text_and_programs_get_bytes() {
        let title = "01A route=/notify/{id} event=e\\n1\\0 try=1 verified=none 3 bytes\n";
        assert_eq!(
            String::from_utf8_lossy(&for_people(&message(), false)),
            format!("{title}> POST /x HTTP/1.1\n> A: \\u{{1b}}\na\\0\\xff\n")
        );
        assert_eq!(for_people(&message(), true), b"a\\0\\xff\n");
        assert_eq!(
            for_programs(&message(), false),
            [title.as_bytes(), b"a\0\xff\n"].concat()
        );
        assert_eq!(for_programs(&message(), true), b"a\0\xff\n");
    }

    #[test]
    fn a_command_gets_the_bytes_and_its_exit_code_decides() {
        let check = "test \"$(od -An -tx1 | tr -d ' ')\" = 6100ff && test \"$PAYRELAY_ID\" = 01A \
                     && test \"$PAYRELAY_ROUTE\" = '/notify/{id}' && test \"$PAYRELAY_TRY\" = 1 \
                     && test \"$PAYRELAY_VERIFIED\" = none && test \"$PAYRELAY_AT\" = 17 \
                     && test \"$PAYRELAY_EVENT\" = \"$(printf 'e\\n1\u{fffd}')\" \
                     && case $PAYRELAY_HEAD in 'POST /x'*) ;; *) false;; esac";
        assert_eq!(execute(check, &message()), Acknowledgement::Ack);
        assert_eq!(
            execute("exit 3", &message()),
            Acknowledgement::Nack("exit 3".into())
        );
        assert_eq!(
            execute("kill -9 $$", &message()),
            Acknowledgement::Nack("signal 9".into())
        );
    }

    #[test]
    fn a_command_that_does_not_read_its_input_is_no_failure() {
        let big = Message {
            body: vec![b'x'; 1 << 20],
            ..message()
        };
        assert_eq!(execute("exec <&-; exit 0", &big), Acknowledgement::Ack);
    }

    #[test]
    fn the_worker_says_which_job_is_done() {
        let worker = HandlerThread::start(Handling::Exec("exit 4".into())).expect("a thread");
        worker.take(Job {
            connection: 7,
            message: message(),
        });
        let done = worker.done().recv().expect("an acknowledgement");
        assert_eq!((done.connection, done.id.as_str()), (7, "01A"));
        assert_eq!(
            done.acknowledgement.expect("it ran"),
            Acknowledgement::Nack("exit 4".into())
        );
    }
}
