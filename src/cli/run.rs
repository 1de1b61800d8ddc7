//! `payrelay run`: the relay, and the signals that steer it.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use payrelay::config::Config;
use payrelay::heartbeat;
use payrelay::logging::Logging;
use payrelay::relay::Relay;
use payrelay::systemd::{Notifier, Sockets};
use payrelay::thread::{self, JoinOnDrop};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::failure::{EXIT_CONFIG, EXIT_FAILURE};
use super::service::Service;
use super::stop::end_on_signals_if;
use super::{ConfigFile, Failure, glibc, print};

pub const HELP: &str = "\
Example:
  payrelay run -c /etc/payrelay/relay.toml

When every port is open it prints one line: ready node=… http=… tcp=… admin=…; the log goes to standard error or log.file.

Signals:
  TERM, INT  drain: no new requests, backends are told, what is in flight finishes; 10 s at most. Again: end at once
  HUP        read the configuration again and take over what can change; on an error keep the old
  USR1       open log.file again, after a rotation

Under systemd it says when it is ready, reloads and stops, and feeds the watchdog (Type=notify, WatchdogSec=), and takes
the sockets of a socket unit with the same addresses as relay.toml. Without systemd nothing of that happens.";

/// How long what is in flight has to finish after SIGTERM. Service managers wait for 90 s, orchestrators for 30.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long the stop may take with all that follows the drain: the last batch to Redis, the outbox's last words.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

pub fn run(file: &ConfigFile) -> Result<(), Failure> {
    // First of all: what has to be closed on exec is not open yet.
    let set_up = glibc::set_up();
    let sockets = Sockets::take_from_environment().map_err(Failure::config)?;
    let config = file.load_or("")?;
    let place = |words: String| config.places.with_place(file.path.display(), &words);
    let logging = Logging::start(&config.log)
        .map_err(|error| Failure::config_lines(place(error.to_string())))?;
    if let Err(error) = set_up {
        log::info!(
            "sessions will take more memory: cannot start again with glibc set up for it: {error}"
        );
    }
    for warning in &config.warnings {
        log::warn!("{warning}"); // it names its place
    }
    // Before the start: a signal that comes during it is heard after it, and SIGHUP does not end the process.
    let (mut signals, second_ends) = hear_signals()
        .map_err(|error| Failure::new(format_args!("cannot hear signals: {error}")))?;
    let relay = Relay::start(config.clone(), sockets).map_err(|error| {
        if config.log.file.is_some() {
            log::error!("{error}"); // whoever reads the file does not see standard error
        }
        let code = error.exit_code();
        match code {
            // As every error of the configuration: beginning with the file that can mend it.
            EXIT_CONFIG => Failure::config_lines(place(error.to_string())),
            _ => Failure::with_code(code, error),
        }
    })?;
    tell_ready(&relay.ready_line(), &config);
    let service = Service::start(Notifier::from_environment(), relay.vitals())
        .map_err(Failure::cannot_start)?;
    let mut running = config;
    for signal in signals.forever() {
        match signal {
            SIGHUP => {
                service.reloading();
                running = reload(&file.path, running, &relay, &logging);
                service.ready();
            }
            SIGUSR1 => logging.reopen(),
            _ => {
                second_ends.store(true, Ordering::SeqCst);
                break;
            }
        }
    }
    service.stopping();
    let _guard = end_at_last();
    relay.drain(Instant::now() + DRAIN_DEADLINE);
    logging.flush();
    Ok(())
}

/// Prints the ready line, and writes it to the log. A person who reads both in one terminal gets it once.
fn tell_ready(ready: &str, config: &Config) {
    log::info!("{ready}");
    let in_the_log = config.log.file.is_none() && log::log_enabled!(log::Level::Info);
    if in_the_log && io::stdout().is_terminal() && io::stderr().is_terminal() {
        return;
    }
    if let Err(failure) = print(format_args!("{ready}\n")) {
        // Whoever started the relay need not listen to it.
        log::warn!("{}", failure.words);
    }
}

/// Ends the process if the stop takes too long, because a thread hangs: the stop waits for all of them. Dropping it calls that off.
fn end_at_last() -> Option<(Sender<()>, JoinOnDrop)> {
    let (call_off, called_off) = bounded(0);
    let guard = thread::spawn("stop-guard", thread::SMALL_STACK_BYTES, move || {
        if called_off.recv_timeout(STOP_DEADLINE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        for ailment in heartbeat::ailments() {
            log::error!("{}", ailment.words);
        }
        log::error!(
            "not stopped within {} s: ended where it stands; what was answered ok is safe",
            STOP_DEADLINE.as_secs()
        );
        log::logger().flush();
        #[expect(
            clippy::exit,
            reason = "a thread that hangs would keep the process for ever"
        )]
        std::process::exit(i32::from(EXIT_FAILURE));
    });
    Some((call_off, guard.ok()?))
}

/// The signals as a queue, and the switch that makes a SIGTERM or SIGINT end the process where it stands.
fn hear_signals() -> std::io::Result<(Signals, Arc<AtomicBool>)> {
    let second_ends = Arc::new(AtomicBool::new(false));
    end_on_signals_if(&second_ends)?;
    // SIGPIPE needs nothing here: Rust's start-up ignores it, so a write to a closed socket is an error.
    Ok((
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?,
        second_ends,
    ))
}

/// Reads the file again. What it says that cannot be taken over, and every error, is logged; the configuration in force
/// comes back.
fn reload(path: &Path, running: Config, relay: &Relay, logging: &Logging) -> Config {
    let fresh = match Config::load(path) {
        Ok(fresh) => fresh,
        Err(errors) => {
            for error in &errors {
                log::error!("{error}");
            }
            log::error!("not reloaded: the configuration in force stays");
            return running;
        }
    };
    let reloaded = match running.reload(&fresh) {
        Ok(reloaded) => reloaded,
        Err(refused) => {
            log::error!("{}: not reloaded: {refused}", path.display());
            return running;
        }
    };
    for warning in &reloaded.config.warnings {
        log::warn!("{warning}");
    }
    for note in &reloaded.needs_restart {
        log::warn!("{}: {note}", path.display());
    }
    logging.reload(&reloaded.config.log);
    for bad in relay.reload(&reloaded.config) {
        log::error!("{}: {bad}; the certificate in use stays", path.display());
    }
    log::info!("{}: reloaded", path.display());
    reloaded.config
}
