//! The table of metric names, with their help texts and labels.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct MetricSpec {
    /// Full name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts, for people.
    pub help: &'static str,
}

/// Makes one constant per metric, and the table of all.
macro_rules! metrics {
    ($($constant:ident $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(pub(crate) const $constant: MetricSpec = MetricSpec {
            name: concat!("ringfence_", $name),
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric that Ringfence itself defines; the standard `process_*` ones come on top.
        pub const METRICS: &[MetricSpec] = &[$($constant),*];
    };
}

metrics! {
    EVENTS_SEEN "events_seen_total" Counter ["call"] "Attempts that the probes saw. seen = sent + held back + lost.";
    EVENTS_SENT "events_sent_total" Counter ["call"] "Events that the probes put into the ring.";
    EVENTS_HELD_BACK "events_held_back_total" Counter ["call"] "Events that were counted in the kernel instead of sent, because their cgroup sent too many.";
    EVENTS_LOST "events_lost_total" Counter ["call", "reason"] "Events that the probes could not send.";
    LOSSES_UNATTRIBUTED "losses_unattributed_total" Counter ["call"] "Lost events that no cgroup could be named for, because the table of losses by cgroup was full. Part of events_lost_total.";
    KERNEL_READ_ERRORS "kernel_counters_read_errors_total" Counter [] "Scrapes at which the kernel's counters could not be read; the last known ones were shown.";
    RING_CAPACITY "ring_capacity_bytes" Gauge [] "Size of the ring buffer.";
    RING_USED "ring_used_bytes" Gauge [] "Bytes of the ring buffer that wait to be read.";
    MAP_ENTRIES "map_entries" Gauge ["map"] "Entries in use of a map that the probes write, as of the last count, at most half a minute ago. Of tasks, marks and cap_told, which give up the oldest, a full one is no loss by itself.";
    MAP_CAPACITY "map_capacity" Gauge ["map"] "Entries that a map of the probes has room for.";
    BPF_MAP_MEMORY "bpf_map_memory_bytes" Gauge [] "Memory of the kernel that the maps take, the ring buffer included.";
    BPF_PROGRAM_MEMORY "bpf_program_memory_bytes" Gauge [] "Memory of the kernel that the attached probes' programs take.";
    ATTEMPTS "attempts_total" Counter ["call", "verdict", "refused_by"] "Attempts that reached the rules, by how they ended: allowed, failed, or refused and by whom. Refused opens of nothing that is watched are not among them (events_discarded_total).";
    EVENTS_RECEIVED "events_received_total" Counter ["kind"] "Records that the daemon read from the ring and decoded.";
    EVENTS_DISCARDED "events_discarded_total" Counter ["reason"] "Calls that led to no alert: no rule matched, only rules below the least priority or below their threshold did, or a refused open turned out to be for nothing that is watched, or there were too many of those to look at each.";
    DECODE_ERRORS "decode_errors_total" Counter ["reason"] "Records that the daemon could not decode.";
    ENRICHMENT "enrichment_total" Counter ["result"] "Events by what could be found out about process and container.";
    EVENTS_WAITED "events_waited_total" Counter ["result"] "Events that waited for their container's name, by how the wait ended: named, missing (there is no name), timed_out, no_room, or shutdown.";
    METADATA_READS "metadata_reads_total" Counter ["result"] "Looks at what a runtime wrote about a container: ok, or why there was no name. A container that is being started may be looked at several times.";
    METADATA_QUESTIONS_DROPPED "metadata_questions_dropped_total" Counter [] "Questions for a container's name that found the queue full, or too many about users' containers under way; the container's next event asks again.";
    TABLE_ENTRIES "table_entries" Gauge ["table"] "Entries in use of a bounded table.";
    TABLE_CAPACITY "table_capacity_entries" Gauge ["table"] "Entries that a bounded table has room for.";
    TABLE_EVICTIONS "table_evictions_total" Counter ["table"] "Entries that a bounded table gave up for want of room.";
    ALERTS "alerts_total" Counter ["rule", "priority"] "Alerts by rule id and priority, also those that were held together.";
    SUPPRESSED "alerts_suppressed_total" Counter ["rule", "reason"] "Alerts that had no line of their own, by rule id: grouped (group_seconds), told by a summary. Part of alerts_total.";
    OUTPUT_RECORDS "output_records_total" Counter ["output", "result"] "Alert lines by what became of them at an output: written or dropped.";
    OUTPUT_DROPPED "output_dropped_total" Counter ["output", "reason"] "Alert lines that an output dropped.";
    OUTPUT_BYTES "output_written_bytes_total" Counter ["output"] "Bytes that an output took.";
    OUTPUT_ERRORS "output_errors_total" Counter ["output"] "Writes to an output that failed.";
    OUTPUT_QUEUE_LENGTH "output_queue_length" Gauge ["output"] "Alert lines that wait in memory for an output.";
    OUTPUT_QUEUE_BYTES "output_queue_bytes" Gauge ["output"] "Bytes that wait in memory for an output.";
    OUTPUT_SPOOL_LENGTH "output_spool_length" Gauge ["output"] "Alert lines that wait on disk for an output whose peer is away.";
    OUTPUT_SPOOL_BYTES "output_spool_bytes" Gauge ["output"] "Bytes that an output's spool takes on disk.";
    OUTPUT_SPOOL_CAPACITY "output_spool_capacity_bytes" Gauge ["output"] "Bytes that an output's spool may take on disk; 0 without a spool.";
    RECORDED_EVENTS "recorded_events_total" Counter [] "Events that are in a recording (record_dir).";
    RECORDED_BYTES "recorded_bytes_total" Counter [] "Bytes of recorded events that were written.";
    RECORD_DROPPED "record_dropped_total" Counter ["reason"] "Events that were judged, but not recorded: queue_full (the disk is too slow), write_error (the disk is full, say), too_large, limit, or shutdown.";
    RULES_LOADED "rules_loaded" Gauge ["maturity"] "Enabled rules by maturity.";
    RULES_GENERATION "rules_generation" Gauge [] "Number of the rules in force: 1 for those that the daemon started with, one more for each set that took their place.";
    RULES_RELOADS "rules_reloads_total" Counter ["outcome"] "Reloads of rules: ok (new ones are in force), failed (the files are wrong, and the rules in force stay), unchanged (the files are as they were).";
    RULES_FILES "rules_files_info" Gauge ["sha256"] "1 for the SHA-256 of the rule files in force, one after another in the order of `ringfence status`: the same on all machines that have the same rules.";
    RULES_LAST_RELOAD "rules_last_reload_timestamp_seconds" Gauge [] "When rules were last read, at the start or by a reload, whatever came of it; seconds since 1970.";
    CONFIG_LAST_RELOAD_SUCCESSFUL "config_last_reload_successful" Gauge [] "1 if the rules in force are those of the files, as last read; 0 if those were refused, or could not be read.";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP "config_last_reload_success_timestamp_seconds" Gauge [] "When the rule files were last read and found right, at the start or by a reload; seconds since 1970.";
    PROBE_ATTACHED "probe_attached" Gauge ["probe"] "1 if the probe is attached.";
    PROBE_MISSED "probe_missed_total" Counter ["probe"] "Runs of a probe that the kernel skipped, because a preempted task was inside the same probe on that CPU. What they would have seen is not in the ledger.";
    PROBE_RUNS "probe_runs_total" Counter ["probe"] "Runs of a probe that the kernel counted. It counts only where probe_cost_measured is 1.";
    PROBE_RUN_SECONDS "probe_run_seconds_total" Counter ["probe"] "Time that the kernel measured for these runs.";
    PROBE_COST_MEASURED "probe_cost_measured" Gauge [] "1 while the kernel measures what the probes cost (probe_cost, or kernel.bpf_stats_enabled); 0 means that probe_runs_total and probe_run_seconds_total stand still.";
    COVERAGE_DEGRADED "coverage_degraded" Gauge [] "1 while something is not watched that should be; `ringfence doctor` says what.";
    CANARY_UP "canary_up" Gauge ["hook"] "1 if the last test call for the hook came back through kernel, ring and matcher; 0 if it did not, or where canary_untested is 1.";
    CANARY_UNTESTED "canary_untested" Gauge ["hook"] "1 if the hook is not tested: it is not attached, or this machine has no harmless call for it; the log and `ringfence doctor --selftest` say why.";
    CANARY_LAST_SUCCESS "canary_last_success_timestamp_seconds" Gauge ["hook"] "When a test call for the hook last came back; seconds since 1970, 0 if none has.";
    CANARY_ROUND_TRIP "canary_round_trip_seconds" Gauge [] "From a test call to the matcher, the slowest of the last round that came back whole.";
    BLIND "blind" Gauge [] "1 while something that was seen is seen no longer; /readyz says what.";
    BLINDNESS "blindness_total" Counter ["cause"] "How often blindness was found, by cause.";
    CONTROL_REQUESTS "control_requests_total" Counter ["outcome"] "Connections to the control socket by what became of them.";
    CAPABILITY_LEDGER "capability_ledger" Gauge [] "1 while capability checks are counted; 0 where they cannot be, and the numbers of them mean nothing.";
    CAPABILITY_CHECKS "capability_checks_total" Counter ["capability", "result"] "Capability checks of the kernel, of containers and of the host: allowed, denied, and those of which the kernel says that it only looked (silent_allowed, silent_denied). As of the last read, at most ten seconds ago.";
    CAPABILITY_UNCOUNTED "capability_checks_uncounted_total" Counter ["capability", "result"] "Capability checks that found no room in the kernel's map; whose they were is not known. Not part of capability_checks_total.";
    CAPABILITY_BORROWED "capability_checks_borrowed_total" Counter ["capability"] "Capability checks of other credentials than the task's own, such as overlayfs makes of whoever mounted it; they are in no row. Not part of capability_checks_total.";
    CAPABILITY_TASKS_UNKNOWN "capability_tasks_unknown_total" Counter [] "Times that nothing was known of a task when it was asked for a capability or its credentials were compared: it ran before the daemon, found no room, or an exec was not seen. What it had gained until then is not told.";
    CAPABILITY_ROWS "capability_rows" Gauge [] "Rows in use of the kernel's map of capability checks: one for each kind of check of a cgroup.";
    CAPABILITY_ROWS_CAPACITY "capability_rows_capacity" Gauge [] "Rows that the kernel's map of capability checks has room for.";
    CAPABILITY_CONTAINERS "capability_containers" Gauge ["state"] "Containers whose capability checks are known: running, or ended.";
    CAPABILITY_FORGOTTEN "capability_containers_evicted_total" Counter ["reason"] "Containers whose capability checks are no longer kept: no_room (too many run), name_too_long (its name, with those of the containers around it), or oldest (too many have ended).";
    CAPABILITY_UNATTRIBUTED "capability_checks_unattributed_total" Counter [] "Capability checks of cgroups that were gone before it was known whose they were. Part of capability_checks_total.";
    CAPABILITY_READ_ERRORS "capability_read_errors_total" Counter [] "Looks at the kernel's map of capability checks, or at the pipeline's cgroups, that failed; what was counted stays in the kernel until the next one.";
    CAPABILITY_STATE_ERRORS "capability_state_errors_total" Counter [] "Records in the state directory that were refused, rounds in which one could not be written, and the directory itself if it could not be opened.";
    STATE_UNUSABLE "state_dir_unusable" Gauge [] "1 if the state directory (state_dir) could not be opened: a restart forgets what was counted.";
    CAPABILITY_UNUSED "capability_unused_info" Gauge ["container_id", "container_name", "capability"] "1 for a capability that a running container was granted and has not used while it was watched. Only with capability_unused_series.";
    CAPABILITY_UNUSED_DROPPED "capability_unused_series_dropped" Gauge [] "Series of capability_unused_info that capability_unused_series leaves no room for.";
    SYSCALL_SETS "syscall_sets" Gauge [] "Cgroups whose system calls are noted in the kernel's map; 0 without the setting syscall_sets.";
    SYSCALLS_UNNOTED "syscalls_unnoted_total" Counter [] "System calls that could not be noted: the map had no room for their cgroup, or the kernel skipped the probe. Whose they were is not known.";
    ATTACH_MODE "attach_mode_info" Gauge ["mode"] "1 for the attach mode in force.";
    HIERARCHY "cgroup_hierarchy_info" Gauge ["hierarchy"] "1 for the cgroup hierarchy by which containers are known: v2, a version 1 controller, or none.";
    BUILD_INFO "build_info" Gauge ["version", "revision"] "The running version, and the commit that it was built from (unknown if the build was not told).";
    CONFINED "confined" Gauge ["layer"] "1 where Ringfence has taken this from itself: capabilities, no_new_privs, seccomp, landlock.";
    CONFINEMENT_REFUSED "confinement_refused_total" Counter [] "System calls that Ringfence's filter on itself refused: a gap in its list, or somebody else's code.";
}

/// Where a rule's `maturity` is missing.
pub(super) const UNSTATED: &str = "unstated";

/// Values of the label `maturity`.
pub(super) const MATURITIES: &[&str] = &["stable", "incubating", "sandbox", "deprecated", UNSTATED];
