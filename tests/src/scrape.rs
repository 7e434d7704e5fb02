//! A scrape of `/metrics`, read as families with their labels: for whoever holds names in documents to what is served.

use std::collections::{BTreeMap, BTreeSet};

/// A metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// `counter` or `gauge`.
    pub kind: String,
    /// What it is, for people.
    pub help: String,
    /// Names of its labels.
    pub labels: BTreeSet<String>,
    /// How many series it has.
    pub series: usize,
}

/// The families of a scrape, by name.
///
/// # Errors
/// A line that is none of Prometheus' text format as the daemon writes it.
pub fn families(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        let fault = || format!("not a line of a scrape: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(fault)?;
            help.clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(fault)?;
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or_else(fault)?;
            value.parse::<f64>().map_err(|_| fault())?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let family = families.get_mut(name).ok_or_else(fault)?;
            family.series += 1;
            // Values hold no quotes: rules have ids, and everything else is a word of ours.
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, _) = label.split_once("=\"").ok_or_else(fault)?;
                family.labels.insert(label.to_owned());
            }
        }
    }
    Ok(families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_labels() {
        let text = "# HELP a_total What.\n# TYPE a_total counter\na_total{b=\"x,y\",c=\"\"} 1\n\
                    a_total{b=\"z\",c=\"1\"} 2.5\n# HELP d D.\n# TYPE d gauge\nd 4e3\n";
        let families = families(text).unwrap();
        let a = &families["a_total"];
        assert_eq!((a.kind.as_str(), a.help.as_str(), a.series), ("counter", "What.", 2));
        assert_eq!(a.labels.iter().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!((families["d"].series, families["d"].labels.len()), (1, 0));
        for wrong in ["x", "x 1", "# HELP a\n"] {
            assert!(super::families(wrong).is_err(), "{wrong}");
        }
    }
}
