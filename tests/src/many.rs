//! Many short containers, several at a time, and whether each alert of them names the right one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::attempt::mark;
use crate::harness::alerts::Alert;

/// Containers at a time.
const AT_ONCE: usize = 4;

/// A container that was made, and what alerts of it must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its full id.
    pub id: String,
    /// The fields that its metadata must give, by name.
    pub named: Vec<(&'static str, String)>,
}

/// Makes `count` containers, [`AT_ONCE`] at a time; each is told the number of the mark that it must make. Says on
/// standard output how far it is: the test runner takes long silence for a hang.
///
/// # Errors
/// The first of `make`.
pub fn make(count: usize, make: impl Fn(u32) -> io::Result<Made> + Sync) -> io::Result<BTreeMap<u32, Made>> {
    let (next, all, fault) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), Mutex::new(None));
    let work = || {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= count || fault.lock().is_ok_and(|fault| fault.is_some()) {
                return;
            }
            let number = mark::FIRST + turn as u32;
            match make(number) {
                Ok(made) => {
                    all.lock().unwrap_or_else(PoisonError::into_inner).insert(number, made);
                }
                Err(error) => {
                    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
            if (turn + 1).is_multiple_of(50) {
                println!("  {} of {count}", turn + 1);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    match fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// How the alerts of many containers were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Containers whose mark raised an alert with all that it must say.
    pub named: usize,
    /// Containers whose mark raised no alert.
    pub silent: Vec<u32>,
    /// Alerts, of marks or anything else, that say neither host nor a container.
    pub without_id: Vec<String>,
    /// Alerts that say another container than the one that it was.
    pub wrong_id: Vec<String>,
    /// Alerts that say another name or image than the container's.
    pub wrong_name: Vec<String>,
    /// Alerts of marks without a name or an image.
    pub unnamed: Vec<String>,
}

impl Tally {
    /// Holds all alerts against what was made.
    pub fn of(made: &BTreeMap<u32, Made>, alerts: &[Alert]) -> Tally {
        let by_id: HashMap<&str, &Made> =
            made.values().map(|made| (made.id.get(..12).unwrap_or_default(), made)).collect();
        let mut tally = Tally::default();
        let mut complete: BTreeMap<u32, bool> = BTreeMap::new();
        for alert in alerts {
            // What the daemon says of itself is about no container.
            if alert.get("source").as_deref() == Some("internal") {
                continue;
            }
            let shown = alert.json.to_string();
            let id = alert.get("container.id");
            let number = alert.get("evt.args").and_then(|text| mark::number(&text));
            let marked = number.and_then(|number| Some((number, made.get(&number)?)));
            if matches!(id.as_deref(), None | Some("" | "unknown")) {
                tally.without_id.push(shown);
                continue;
            }
            let id = id.unwrap_or_default();
            if let Some((number, of)) = marked {
                if id == "host" {
                    tally.without_id.push(shown);
                    continue;
                }
                if of.id.get(..12) != Some(id.as_str()) {
                    tally.wrong_id.push(shown);
                    continue;
                }
                let lacks = of.named.iter().any(|(field, _)| alert.get(field).is_none());
                if lacks {
                    tally.unnamed.push(shown.clone());
                }
                *complete.entry(number).or_insert(true) &= !lacks;
            }
            // Alerts of containers that somebody else started are not ours to judge.
            let Some(of) = by_id.get(id.as_str()) else { continue };
            let wrong =
                |(field, must): &(&'static str, String)| alert.get(field).is_some_and(|found| found != *must);
            if of.named.iter().any(wrong) {
                tally.wrong_name.push(shown);
                if let Some((number, _)) = marked {
                    complete.insert(number, false);
                }
            }
        }
        tally.silent = made.keys().copied().filter(|number| !complete.contains_key(number)).collect();
        tally.named = complete.values().filter(|complete| **complete).count();
        tally
    }

    /// How many alerts each rule raised, for messages.
    pub fn by_rule(alerts: &[Alert]) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for alert in alerts {
            *counts.entry(alert.get("rule").unwrap_or_default()).or_default() += 1;
        }
        counts.iter().map(|(rule, count)| format!("  {count:>6} {rule}\n")).collect()
    }

    /// What the project promises: no alert without a container or with a wrong one or a wrong name, and of a
    /// thousand containers at most one without a name; none without an alert.
    ///
    /// # Errors
    /// What was otherwise, with an example of each.
    pub fn check(&self, made: usize) -> Result<(), String> {
        let faults = [
            ("alerts without a container", &self.without_id),
            ("alerts with a wrong container", &self.wrong_id),
            ("alerts with a wrong name", &self.wrong_name),
        ];
        let mut text: Vec<String> = faults
            .iter()
            .filter(|(_, of)| !of.is_empty())
            .map(|(what, of)| {
                format!("{} {what}, such as {}", of.len(), of.first().map_or("", String::as_str))
            })
            .collect();
        if !self.silent.is_empty() {
            text.push(format!(
                "{} containers without an alert, such as {:?}",
                self.silent.len(),
                self.silent.first()
            ));
        }
        if self.named * 1000 < made * 999 {
            let example = self.unnamed.first().map_or("", String::as_str);
            text.push(format!("{} of {made} containers named, of the others one is {example}", self.named));
        }
        if text.is_empty() { Ok(()) } else { Err(text.join("\n")) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn id(number: u32) -> String {
        format!("{number:064x}").chars().rev().collect()
    }

    fn made() -> BTreeMap<u32, Made> {
        let one = |number: u32| {
            let named = vec![("container.name", format!("n{number}")), ("container.image", "i".to_owned())];
            (mark::FIRST + number, Made { id: id(number), named })
        };
        [one(0), one(1)].into()
    }

    fn alert(number: u32, container: Option<&str>, name: Option<&str>, image: Option<&str>) -> Alert {
        let fields = json!({"evt.args": mark::arguments(mark::FIRST + number), "container.id": container,
            "container.name": name, "container.image": image});
        Alert { json: json!({"source": "syscall", "output_fields": fields}), arrived: Instant::now() }
    }

    #[test]
    fn each_fault_is_found() {
        let (first, second) = (id(0), id(1));
        let (first, second) = (&first[..12], &second[..12]);
        let good =
            [alert(0, Some(first), Some("n0"), Some("i")), alert(1, Some(second), Some("n1"), Some("i"))];
        let tally = Tally::of(&made(), &good);
        assert_eq!((tally.named, tally.check(2)), (2, Ok(())));
        let faults: [(Alert, &str); 7] = [
            (alert(1, None, None, None), "without a container"),
            (alert(1, Some("unknown"), None, None), "without a container"),
            (alert(1, Some("host"), None, None), "without a container"),
            (alert(1, Some(first), Some("n0"), Some("i")), "wrong container"),
            (alert(1, Some(second), Some("n0"), Some("i")), "wrong name"),
            (alert(1, Some(second), Some("n1"), None), "of 2 containers named"),
            // Not a mark's, but of a container that we know.
            (alert(9, Some(second), Some("n1"), Some("j")), "wrong name"),
        ];
        for (alert, fault) in faults {
            let text = Tally::of(&made(), &[good[0].clone(), alert]).check(2).unwrap_err();
            assert!(text.contains(fault), "{fault}: {text}");
        }
        let silent = Tally::of(&made(), &good[..1]).check(2).unwrap_err();
        assert!(silent.contains("1 containers without an alert"), "{silent}");
        let other = alert(9, Some("ffffffffffff"), Some("other"), None);
        let mut own = alert(9, None, None, None);
        own.json["source"] = json!("internal");
        assert_eq!(Tally::of(&made(), &[good[0].clone(), good[1].clone(), other, own]).check(2), Ok(()));
    }

    #[test]
    fn one_of_a_thousand_may_lack_its_name() {
        let tally = |named| Tally { named, ..Tally::default() };
        assert_eq!(tally(999).check(1000), Ok(()));
        assert!(tally(998).check(1000).is_err());
    }

    #[test]
    fn containers_are_made_until_one_fails() {
        let fine = |number: u32| Ok(Made { id: number.to_string(), named: Vec::new() });
        let all = make(9, fine).expect("all are made");
        assert_eq!(
            all.keys().copied().collect::<Vec<u32>>(),
            (mark::FIRST..mark::FIRST + 9).collect::<Vec<u32>>()
        );
        let failing =
            |number| if number == mark::FIRST + 3 { Err(io::Error::other("x")) } else { fine(number) };
        assert!(make(9, failing).is_err());
    }
}
