//! Metrics under test: names, labels, every series at the start, sums.

use std::time::{Duration, Instant};

use super::*;
use crate::rules::RuleSet;
use crate::sink::{Batch, DEFAULT_QUEUE_BYTES};

const LABELS: Labels<'_> = Labels {
    kinds: &["setns", "exec"],
    decode_errors: &["too_short"],
    causes: &["detached"],
    tables: &["process"],
};

#[derive(Default)]
struct Kernel(std::sync::Mutex<Option<KernelSnapshot>>);

impl KernelCounters for Kernel {
    fn calls(&self) -> &[&'static str] {
        &["setns", "capset"]
    }

    fn loss_reasons(&self) -> &[&'static str] {
        &["ring_full"]
    }

    fn snapshot(&self) -> anyhow::Result<KernelSnapshot> {
        self.0.lock().unwrap().clone().ok_or_else(|| anyhow::anyhow!("no"))
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
}

#[test]
fn names_follow_the_rules() {
    for spec in METRICS {
        let name = spec.name;
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(name.starts_with("ringfence_"), "{name}");
        assert_eq!(spec.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(!name.contains("nanoseconds") && !name.contains("milliseconds"), "{name}");
        if name.contains("_bytes") {
            assert!(name.ends_with("_bytes") || name.ends_with("_bytes_total"), "{name}: unit at the end");
        }
        assert!(spec.help.ends_with('.'), "{name}: a help text is a sentence");
        assert_eq!(METRICS.iter().filter(|other| other.name == name).count(), 1, "{name}");
        for label in spec.labels {
            assert!(
                !["pid", "comm", "path", "container", "cgroup", "exe"].contains(label),
                "{name}: {label}"
            );
        }
    }
}

#[test]
fn every_series_is_there_from_the_start() {
    let metrics = Metrics::new(&LABELS).unwrap();
    let rules = RuleSet::from_sources(&[(
        "r.yaml",
        "- rule: Enter\n  id: enter\n  desc: d\n  condition: evt.type = setns\n  output: x\n  priority: WARNING\n",
    )])
    .unwrap();
    assert!(metrics.probes().is_empty() && !metrics.encode().unwrap().contains("canary_up"));
    let alerts = metrics.rule_alerts(rules.rules()).unwrap();
    metrics.rule_suppressed(rules.rules()).unwrap();
    metrics.set_rules_loaded(rules.rules());
    metrics.set_attach_mode(AttachMode::Trampoline);
    metrics.set_attach_mode(AttachMode::Tracepoint);
    metrics.set_rules_files(&rules.sources().sha256());
    metrics.set_rules_files("abc");
    metrics.set_hierarchy(Some("devices"));
    metrics.set_hierarchy(None);
    let kernel = Arc::new(Kernel::default());
    metrics.add_kernel(kernel.clone()).unwrap();
    let sink = Sink::start("test", std::io::sink(), DEFAULT_QUEUE_BYTES).unwrap();
    metrics.add_sinks([&sink]).unwrap();
    metrics.add_source(crate::recording::RecordSource::default()).unwrap();
    metrics.add_source(crate::capabilities::CapabilitySource::default()).unwrap();
    metrics.add_source(crate::confine::Said::default()).unwrap();
    metrics.add_source(Late::<crate::bpf_maps::BpfMaps>::default()).unwrap();
    let programs = vec![("sys_exit".to_owned(), None)];
    metrics.add_source(Arc::new(crate::misses::Misses::new(programs))).unwrap();
    metrics.add_probes([("sys_exit", "tp_btf/sys_exit", true), ("x", "fexit/x", false)].into_iter()).unwrap();
    let text = metrics.encode().unwrap();
    // Series by container are there on request only.
    let later = [CAPABILITY_UNUSED.name];
    for spec in METRICS.iter().filter(|spec| !later.contains(&spec.name)) {
        let kind = if spec.kind == Kind::Counter { "counter" } else { "gauge" };
        has(&text, &format!("# TYPE {} {kind}", spec.name));
    }
    has(&text, "ringfence_alerts_total{priority=\"Warning\",rule=\"enter\"} 0");
    has(&text, "ringfence_events_lost_total{call=\"capset\",reason=\"ring_full\"} 0");
    has(&text, "ringfence_kernel_counters_read_errors_total 1");
    has(&text, "ringfence_output_dropped_total{output=\"test\",reason=\"queue_full\"} 0");
    has(&text, "ringfence_record_dropped_total{reason=\"write_error\"} 0");
    has(&text, "ringfence_capability_checks_total{capability=\"CAP_SYS_TIME\",result=\"silent_denied\"} 0");
    has(&text, "ringfence_capability_checks_uncounted_total{capability=\"other\",result=\"denied\"} 0");
    has(&text, "ringfence_capability_ledger 0");
    has(&text, "ringfence_capability_checks_borrowed_total{capability=\"CAP_SYS_ADMIN\"} 0");
    has(&text, "ringfence_capability_tasks_unknown_total 0");
    has(&text, "ringfence_attach_mode_info{mode=\"tracepoint\"} 1");
    has(&text, "ringfence_attach_mode_info{mode=\"trampoline\"} 0");
    has(&text, "ringfence_cgroup_hierarchy_info{hierarchy=\"none\"} 1");
    has(&text, "ringfence_cgroup_hierarchy_info{hierarchy=\"devices\"} 0");
    has(&text, "ringfence_cgroup_hierarchy_info{hierarchy=\"v2\"} 0");
    has(&text, "ringfence_rules_files_info{sha256=\"abc\"} 1");
    assert_eq!(text.matches("ringfence_rules_files_info{").count(), 1, "digests of earlier rules stay");
    has(&text, "ringfence_probe_attached{probe=\"sys_exit\"} 1");
    has(&text, "ringfence_probe_attached{probe=\"x\"} 0");
    has(&text, "ringfence_probe_missed_total{probe=\"sys_exit\"} 0");
    has(&text, "ringfence_probe_run_seconds_total{probe=\"sys_exit\"} 0");
    has(&text, "ringfence_canary_last_success_timestamp_seconds{hook=\"fexit/x\"} 0");
    has(&text, "ringfence_map_entries{map=\"tasks\"} 0");
    has(&text, "ringfence_attempts_total{call=\"setns\",refused_by=\"device-cgroup\",verdict=\"refused\"} 0");
    has(&text, "ringfence_attempts_total{call=\"setns\",refused_by=\"\",verdict=\"allowed\"} 0");
    assert!(!text.contains("result=\"nested\""), "nobody looks at the files of nested containers");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "no process metrics");
    has(
        &text,
        &format!(
            "ringfence_build_info{{revision=\"{}\",version=\"{}\"}} 1",
            env!("RINGFENCE_REVISION"),
            env!("CARGO_PKG_VERSION")
        ),
    );
    has(&text, "ringfence_rules_loaded{maturity=\"unstated\"} 1");

    alerts[0].inc();
    metrics.events_received[1].inc_by(3);
    sink.stats().set_spool_capacity(65536);
    sink.offer(Batch { bytes: b"a\nb\n".to_vec(), lines: 2, priorities: Vec::new() }).unwrap();
    sink.flush(Instant::now() + Duration::from_secs(20));
    let counts = KernelCounts { seen: 7, sent: 4, held_back: 1, lost: vec![2], unattributed: 1 };
    *kernel.0.lock().unwrap() = Some(KernelSnapshot { calls: vec![counts], ring_capacity_bytes: 4096 });
    let text = metrics.encode().unwrap();
    has(&text, "ringfence_alerts_total{priority=\"Warning\",rule=\"enter\"} 1");
    has(&text, "ringfence_events_received_total{kind=\"exec\"} 3");
    has(&text, "ringfence_output_records_total{output=\"test\",result=\"written\"} 2");
    has(&text, "ringfence_output_spool_capacity_bytes{output=\"test\"} 65536");
    has(&text, "ringfence_events_seen_total{call=\"setns\"} 7");
    has(&text, "ringfence_events_lost_total{call=\"setns\",reason=\"ring_full\"} 2");
    has(&text, "ringfence_ring_capacity_bytes 4096");

    // A kernel that no longer answers does not make counters fall.
    *kernel.0.lock().unwrap() = None;
    let text = metrics.encode().unwrap();
    has(&text, "ringfence_events_seen_total{call=\"setns\"} 7");
    has(&text, "ringfence_kernel_counters_read_errors_total 2");
    assert!(metrics.add_kernel(kernel).is_err(), "the same metrics came from two sources");
}
