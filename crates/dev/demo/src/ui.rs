//! What the demo shows while it runs: phases, with bars on a terminal and plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use tandem_compare::stores::thousands;

const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Progress on stderr. The report is on stdout.
#[derive(Debug)]
pub(crate) struct Ui {
    terminal: bool,
    started: Instant,
}

impl Ui {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), started: Instant::now() }
    }

    /// Announces a phase.
    pub(crate) fn phase(&self, title: &str) {
        eprintln!("[{:>5.1} s] {title}", self.started.elapsed().as_secs_f64());
    }

    /// Prints a detail of the current phase.
    pub(crate) fn note(&self, text: &str) {
        let (dim, normal) = if self.terminal { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        eprintln!("          {dim}{text}{normal}");
    }

    /// A bar over `total` items; 0: the number is unknown.
    pub(crate) fn bar(&self, total: u64) -> Bar {
        let target = if self.terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = if total == 0 {
            "          {spinner} {msg}"
        } else {
            "          {bar:32} {human_pos}/{human_len} {msg} ({eta} left)"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if self.terminal {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Bar { bar, plain: (!self.terminal).then(|| Mutex::new(Instant::now())) }
    }
}

/// A progress bar. It disappears when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    plain: Option<Mutex<Instant>>,
}

impl Bar {
    /// Sets the position, the total and the message.
    pub(crate) fn set(&self, position: u64, total: u64, message: &str) {
        self.bar.set_length(total.max(position));
        self.bar.set_position(position);
        self.say(message);
        self.plain(|| format!("{}/{} {message}", thousands(position), thousands(total.max(position))));
    }

    /// Sets the message only.
    pub(crate) fn message(&self, message: &str) {
        self.say(message);
        self.plain(|| message.to_owned());
    }

    /// Prints a line above the bar, if there is one to print.
    pub(crate) fn line_if(&self, text: Option<String>) {
        if let Some(text) = text {
            self.bar.suspend(|| eprintln!("          {text}"));
        }
    }

    fn say(&self, message: &str) {
        if self.plain.is_none() {
            self.bar.set_message(message.to_owned());
        }
    }

    fn plain(&self, text: impl FnOnce() -> String) {
        let Some(last) = &self.plain else { return };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            eprintln!("          {}", text());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
