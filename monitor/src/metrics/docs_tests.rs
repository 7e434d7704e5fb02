//! The list of all metrics in docs/prometheus.md is made of the table of names.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;

const BEGIN: &str = "<!-- made by `RINGFENCE_BLESS=1 cargo test -p monitor metrics` from here -->\n";
const END: &str = "<!-- to here -->\n";

/// A row each, in the order of the table; the standard ones at the end.
fn list() -> String {
    let mut text = "| Metric | Type | Labels | |\n|---|---|---|---|\n".to_owned();
    for spec in METRICS {
        let kind = if spec.kind == Kind::Counter { "counter" } else { "gauge" };
        let _ = writeln!(text, "| `{}` | {kind} | {} | {} |", spec.name, spec.labels.join(", "), spec.help);
    }
    let labels = Labels { kinds: &[], decode_errors: &[], causes: &[], tables: &[] };
    let families = Metrics::new(&labels).unwrap().registry.gather();
    for family in families.iter().filter(|family| family.name().starts_with("process_")) {
        let kind = match family.get_field_type() {
            prometheus::proto::MetricType::COUNTER => "counter",
            _ => "gauge",
        };
        let _ = writeln!(text, "| `{}` | {kind} | | {} |", family.name(), family.help());
    }
    text
}

#[test]
fn the_list_in_the_docs_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/prometheus.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let list = list();
    if std::env::var_os("RINGFENCE_BLESS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{list}{END}{after}")).unwrap();
    } else {
        assert!(
            found == list,
            "docs/prometheus.md is stale; `RINGFENCE_BLESS=1 cargo test -p monitor metrics` rewrites the list"
        );
    }
}
