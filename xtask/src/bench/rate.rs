//! The highest rate without loss, CPU per line, memory under load.
//!
//! The truth is the number of calls that the generator made against the lines in the file. The daemon's own
//! counters of losses are held against the difference: a loss that no counter knows is named in the result.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use serde_json::Value;

use super::daemon::{Alerts, Daemon};
use super::measure::row;
use super::{Row, Setting, Target};

/// Events per second that the search starts from, and where it ends at most.
const FIRST_RATE: u64 = 25_000;
const LAST_RATE: u64 = 3_200_000;
/// Halvings between the last rate that passed and the first that did not.
const HALVINGS: u32 = 4;
const SECONDS: u64 = 2;
/// The CPU per line is taken at this rate, or at the highest without loss if that is lower.
const CPU_RATE: u64 = 100_000;

/// What one paced flood showed.
struct Flood {
    made: u64,
    /// Calls without a line.
    lost: u64,
    counted: f64,
    per_second: f64,
    cpu_seconds: f64,
    lines: u64,
    resident: f64,
}

/// Searches the highest rate, then takes CPU and memory at a steady one.
pub(super) fn measure(setting: &Setting) -> Result<Vec<Row>> {
    println!("bench: the highest rate without loss");
    let path = setting.dir.join("alerts.jsonl");
    let alerts = File::options().create(true).append(true).open(&path)?;
    let daemon = Daemon::start(setting, Alerts::File(alerts.try_clone()?))?;
    let flooder = Flooder { setting, daemon: &daemon, alerts: &alerts, path: &path };
    let mut note = String::new();
    let mut samples = Vec::new();

    let (mut good, mut bad) = (0, LAST_RATE * 2);
    let mut rate = FIRST_RATE;
    let mut halvings = 0;
    while rate <= LAST_RATE && halvings <= HALVINGS {
        let flood = flooder.flood(rate)?;
        println!(
            "  {rate}/s: made {:.0}/s, lost {}, counted {}",
            flood.per_second, flood.lost, flood.counted
        );
        let uncounted = flood.lost as f64 - flood.counted;
        if uncounted > 0.0 {
            note = format!("at {rate}/s the counters miss {uncounted} of {} lost", flood.lost);
        }
        if flood.lost == 0 {
            good = good.max(rate);
            samples.push(flood.per_second);
            if flood.per_second < rate as f64 * 0.9 {
                note = format!("no loss at the most that the generator makes here; asked for {rate}/s");
                break;
            }
        } else {
            bad = bad.min(rate);
        }
        rate = if bad > LAST_RATE { rate * 2 } else { u64::midpoint(good, bad) };
        halvings += u32::from(bad <= LAST_RATE);
    }
    // Once is luck: the rate must hold in every round, or the next lower one must.
    let mut steady = good;
    let mut held = Vec::new();
    while steady > 0 && held.len() < setting.rounds as usize {
        let flood = flooder.flood(steady)?;
        if flood.lost == 0 {
            held.push(flood.per_second);
        } else {
            steady = steady * 9 / 10;
            held.clear();
        }
        if steady < 1_000 {
            break;
        }
    }
    println!("bench: CPU per line");
    let load_rate = CPU_RATE.min(steady.max(1_000));
    let (mut cpu, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..setting.rounds {
        let flood = flooder.flood(load_rate)?;
        if flood.lines == 0 {
            bail!("a flood of {} calls left no line in {}", flood.made, path.display());
        }
        cpu.push(flood.cpu_seconds * 1e6 / flood.lines as f64);
        resident.push(flood.resident);
    }
    daemon.stop()?;
    alerts.set_len(0)?;

    let mut rate_row = row("rate without loss", "/s", Some(Target::AtLeast(200_000.0)), held);
    if rate_row.samples.is_empty() {
        rate_row.value = 0.0;
    }
    rate_row.note = note;
    let mut cpu_row = row("CPU per line", "us", Some(Target::AtMost(5.0)), cpu);
    cpu_row.note = format!("at {load_rate}/s");
    let mut resident_row = row("resident memory, under load", "MB", None, resident);
    resident_row.note.clone_from(&cpu_row.note);
    Ok(vec![rate_row, cpu_row, resident_row])
}

struct Flooder<'a> {
    setting: &'a Setting,
    daemon: &'a Daemon,
    alerts: &'a File,
    path: &'a Path,
}

impl Flooder<'_> {
    /// Makes calls at a rate for some seconds and waits until their lines are written.
    fn flood(&self, rate: u64) -> Result<Flood> {
        let counted = self.daemon.counted_losses()?;
        let cpu = self.daemon.cpu_seconds()?;
        // The daemon writes to its end, so it may shrink; a disk is not endless.
        self.alerts.set_len(0)?;
        let mut attempt = Command::new(&self.setting.attempt);
        attempt.args(["flood", "--rate", &rate.to_string(), "--seconds", &SECONDS.to_string()]);
        let mut child =
            attempt.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start attempt")?;
        let mut resident: f64 = 0.0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            resident = resident.max(self.daemon.resident_megabytes()?);
            thread::sleep(Duration::from_millis(50));
        };
        let mut output = String::new();
        child.stdout.take().context("no output of attempt")?.read_to_string(&mut output)?;
        if !status.success() {
            bail!("attempt flood failed: {status}");
        }
        let (made, elapsed) =
            calls_made(&output).with_context(|| format!("attempt flood did not say its calls: {output}"))?;
        let written = self.settle(made)?;
        let cpu_seconds = self.daemon.cpu_seconds()? - cpu;
        Ok(Flood {
            made,
            lost: made.saturating_sub(written),
            counted: self.daemon.counted_losses()? - counted,
            per_second: pace(rate, made as f64 / elapsed),
            cpu_seconds,
            lines: written,
            resident,
        })
    }

    /// Lines in the file, once there are `made` of them or no more come.
    fn settle(&self, made: u64) -> Result<u64> {
        let mut size = 0;
        let mut since = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(100));
            let now = self.alerts.metadata()?.len();
            if now != size {
                (size, since) = (now, Instant::now());
                continue;
            }
            // Counting reads the file whole and takes a core from the daemon: only when it looks finished.
            let lines = count_lines(self.path)?;
            if lines >= made || since.elapsed() > Duration::from_secs(2) {
                return Ok(lines);
            }
        }
    }
}

fn count_lines(path: &Path) -> Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut buffer = vec![0; 1 << 20];
    let mut lines = 0;
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok(lines);
        }
        lines += buffer[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

/// The rate asked for, if the generator came within a hundredth of it: its last partial step is no slowness.
fn pace(asked: u64, reached: f64) -> f64 {
    if reached >= asked as f64 * 0.99 { asked as f64 } else { reached }
}

/// Calls, and the seconds that they took: `{"made": 400000, "elapsed_ns": 2000000000}`.
fn calls_made(output: &str) -> Result<(u64, f64)> {
    let said: Value = serde_json::from_str(output.trim())?;
    let number = |key: &str| said.get(key).and_then(Value::as_u64).with_context(|| format!("no {key}"));
    Ok((number("made")?, number("elapsed_ns")? as f64 / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_what_was_asked_for_or_what_was_reached() {
        assert!((pace(200_000, 199_904.0) - 200_000.0).abs() < 1e-9);
        assert!((pace(200_000, 150_000.0) - 150_000.0).abs() < 1e-9);
    }

    #[test]
    fn the_generators_word_is_understood() {
        let said = "{\"made\":400000,\"elapsed_ns\":2000000000}\n";
        assert!(
            calls_made(said).is_ok_and(|(made, seconds)| made == 400_000 && (seconds - 2.0).abs() < 1e-9)
        );
        for other in ["", "{\"made\":1}", "400000 calls"] {
            assert!(calls_made(other).is_err(), "{other}");
        }
    }
}
