//! What people and scripts see of a run: bars, lines, byte counts. On standard error, drawn here and nowhere else.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::progress::{Event, Reporter, Silent};

/// Shortest time between two byte counts in JSON progress: five a second.
const JSON_PAUSE: Duration = Duration::from_millis(200);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Bars.
    Bar,
    /// JSON lines.
    Json,
    /// Nothing.
    None,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Mode as ValueEnum>::from_str(text, false)
    }
}

/// The reporter for a mode, on standard error.
pub fn reporter(mode: Mode, quiet: bool) -> Arc<dyn Reporter> {
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|t| t != "dumb");
    match mode {
        Mode::Json => Arc::new(JsonLines::new(std::io::stderr())),
        _ if quiet => Arc::new(Silent),
        Mode::None => Arc::new(Lines),
        Mode::Bar => Arc::new(Bars::default()),
        Mode::Auto if terminal => Arc::new(Bars::default()),
        Mode::Auto => Arc::new(Lines),
    }
}

/// Messages only, a line each.
#[derive(Debug)]
struct Lines;

impl Reporter for Lines {
    fn event(&self, event: Event<'_>) {
        if let Event::Message(text) = event {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// A bar for each layer in flight, and one in all.
#[derive(Debug, Default)]
pub struct Bars {
    multi: MultiProgress,
    state: Mutex<BarState>,
}

#[derive(Debug, Default)]
struct BarState {
    total: Option<ProgressBar>,
    layers: HashMap<usize, ProgressBar>,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Reporter for Bars {
    fn event(&self, event: Event<'_>) {
        let mut state = lock(&self.state);
        match event {
            Event::Start { total_bytes, layers } => {
                let bar = self.multi.add(ProgressBar::new(total_bytes));
                bar.set_style(style(
                    "{msg:<22} [{bar:30}] {bytes:>11}/{total_bytes:<11} {bytes_per_sec:>12} {eta:>4}",
                ));
                let blobs = if layers == 1 { "blob" } else { "blobs" };
                bar.set_message(format!("total, {layers} {blobs}"));
                bar.enable_steady_tick(Duration::from_millis(100));
                state.total = Some(bar);
            }
            Event::LayerStart { index, label, bytes } => {
                let bar = ProgressBar::new(bytes);
                bar.set_style(style(
                    "{msg:<22} [{bar:30}] {bytes:>11}/{total_bytes:<11} {bytes_per_sec:>12}",
                ));
                bar.set_message(label.to_owned());
                let bar = match &state.total {
                    Some(total) => self.multi.insert_before(total, bar),
                    None => self.multi.add(bar),
                };
                if let Some(again) = state.layers.insert(index, bar) {
                    // The blob is read anew: its bytes do not count twice.
                    if let Some(total) = &state.total {
                        total.set_position(total.position().saturating_sub(again.position()));
                    }
                    again.finish_and_clear();
                }
            }
            Event::LayerBytes { index, delta } => {
                if let Some(bar) = state.layers.get(&index) {
                    bar.inc(delta);
                }
                if let Some(total) = &state.total {
                    total.inc(delta);
                }
            }
            Event::LayerDone { index, .. } => {
                if let Some(bar) = state.layers.remove(&index) {
                    bar.finish_and_clear();
                }
            }
            Event::Message(text) => {
                if self.multi.println(text).is_err() || self.multi.is_hidden() {
                    let _ = writeln!(std::io::stderr(), "{text}");
                }
            }
            Event::Finish => state.clear(),
        }
    }
}

impl BarState {
    fn clear(&mut self) {
        for (_, bar) in self.layers.drain() {
            bar.finish_and_clear();
        }
        if let Some(total) = self.total.take() {
            total.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        lock(&self.state).clear();
    }
}

/// One JSON object a line; the first names the version of the form.
#[derive(Debug)]
pub struct JsonLines<W: Write> {
    state: Mutex<JsonState<W>>,
}

#[derive(Debug)]
struct JsonState<W> {
    out: W,
    begun: bool,
    bytes: u64,
    total: u64,
    told: Option<Instant>,
    layers: HashMap<usize, u64>,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`; what it reports is ignored, progress is not worth a failure.
    pub fn new(out: W) -> Self {
        let state = JsonState { out, begun: false, bytes: 0, total: 0, told: None, layers: HashMap::new() };
        JsonLines { state: Mutex::new(state) }
    }
}

impl<W: Write> JsonState<W> {
    fn line(&mut self, value: &Value) {
        if !std::mem::replace(&mut self.begun, true) {
            let _ = self.out.write_all(b"{\"event\":\"version\",\"version\":1}\n");
        }
        let _ = self.out.write_all(format!("{value}\n").as_bytes());
    }

    fn tell_bytes(&mut self) {
        self.told = Some(Instant::now());
        let line = json!({"event": "bytes", "bytes": self.bytes, "total_bytes": self.total});
        self.line(&line);
    }
}

impl<W: Write + Send + Debug> Reporter for JsonLines<W> {
    fn event(&self, event: Event<'_>) {
        let mut state = lock(&self.state);
        match event {
            Event::Start { total_bytes, layers } => {
                state.total = total_bytes;
                state.line(&json!({"event": "start", "total_bytes": total_bytes, "blobs": layers}));
            }
            Event::LayerStart { index, label, bytes } => {
                let before = state.layers.insert(index, 0).unwrap_or(0);
                state.bytes = state.bytes.saturating_sub(before);
                state.line(&json!({"event": "layer-start", "layer": index, "label": label, "bytes": bytes}));
            }
            Event::LayerBytes { index, delta } => {
                *state.layers.entry(index).or_default() += delta;
                state.bytes += delta;
                if state.told.is_none_or(|told| told.elapsed() >= JSON_PAUSE) {
                    state.tell_bytes();
                }
            }
            Event::LayerDone { index, outcome } => {
                state.line(&json!({"event": "layer-done", "layer": index, "outcome": outcome}));
            }
            Event::Message(text) => state.line(&json!({"event": "message", "text": text})),
            Event::Finish => {
                state.tell_bytes();
                state.line(&json!({"event": "finish"}));
            }
        }
    }
}

/// A byte count for people: `1.5 MiB`; exact below 1 KiB.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event<'static>; 8] = [
        Event::Start { total_bytes: 10, layers: 1 },
        Event::LayerStart { index: 3, label: "abc patched", bytes: 10 },
        Event::LayerBytes { index: 3, delta: 4 },
        Event::LayerStart { index: 3, label: "abc patched", bytes: 10 },
        Event::LayerBytes { index: 3, delta: 10 },
        Event::LayerDone { index: 3, outcome: "patched" },
        Event::Message("hello"),
        Event::Finish,
    ];

    #[test]
    fn json_lines_are_objects_and_end_with_the_true_total() {
        let json = JsonLines::new(Vec::new());
        EVENTS.iter().for_each(|e| json.event(*e));
        let out = json.state.into_inner().unwrap().out;
        let lines: Vec<Value> =
            std::str::from_utf8(&out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0], json!({"event": "version", "version": 1}));
        assert_eq!(lines[lines.len() - 2]["bytes"], 10, "a blob read anew does not count twice");
        assert_eq!(lines.last().unwrap()["event"], "finish");
        let counts = lines.iter().filter(|l| l["event"] == "bytes").count();
        assert!(counts <= 3, "byte counts are rare: {counts}");
    }

    #[test]
    fn bars_bear_events_in_any_order() {
        let hidden = indicatif::ProgressDrawTarget::hidden();
        let bars = Bars { multi: MultiProgress::with_draw_target(hidden), state: Mutex::default() };
        EVENTS
            .iter()
            .rev()
            .chain(&EVENTS)
            .filter(|e| !matches!(e, Event::Message(_)))
            .for_each(|e| bars.event(*e));
    }

    #[test]
    fn byte_counts_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
