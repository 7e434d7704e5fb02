//! How full the pipeline's bounded tables are, for whoever scrapes.

use super::Pipeline;

/// Bounded tables, as the label `table` names them.
#[derive(Clone, Copy)]
pub(super) enum Table {
    Processes,
    Cgroups,
    /// Bytes of paths and command lines.
    ProgramTexts,
    Names,
    Waiting,
    Namespaces,
    /// Keys by which rules with a threshold count.
    Thresholds,
    /// Cgroups of which it is known what their programs were granted.
    Grants,
    /// Groups of alerts that are held together.
    Groups,
}

/// The tables' names, by their number.
pub(super) const TABLES: &[&str] = &[
    "processes",
    "cgroups",
    "program_text_bytes",
    "names",
    "waiting",
    "namespaces",
    "thresholds",
    "grants",
    "groups",
];

impl Pipeline {
    /// Shows how full the tables are, and what they gave up.
    pub(super) fn publish(&mut self) {
        let evicted = [
            (Table::Processes, std::mem::take(&mut self.processes.evicted)),
            (Table::Cgroups, std::mem::take(&mut self.cgroups.refused)),
            (Table::ProgramTexts, std::mem::take(&mut self.processes.texts_left_out)),
            (Table::Namespaces, self.namespaces.take_evicted()),
            (Table::Grants, self.granted.take_refused()),
        ];
        for (table, count) in evicted {
            self.metrics.table_evictions[table as usize].inc_by(count);
        }
        self.metrics.table_evictions[Table::Names as usize].inc_by(self.names.take_evicted());
        let thresholds = self.alerting.thresholds();
        self.metrics.table_evictions[Table::Thresholds as usize].inc_by(thresholds.take_evicted());
        self.metrics.table_capacity[Table::Thresholds as usize].set(thresholds.capacity() as i64);
        let threshold_keys = thresholds.len();
        let groups = self.alerting.groups();
        self.metrics.table_evictions[Table::Groups as usize].inc_by(groups.take_overflows());
        let group_count = groups.len();
        let entries = [
            (Table::Processes, self.processes.len()),
            (Table::Cgroups, self.cgroups.len()),
            (Table::ProgramTexts, self.processes.text_bytes()),
            (Table::Names, self.names.len()),
            (Table::Waiting, self.room.len()),
            (Table::Namespaces, self.namespaces.owners().len()),
            (Table::Grants, self.granted.len()),
            (Table::Thresholds, threshold_keys),
            (Table::Groups, group_count),
        ];
        for (table, entries) in entries {
            self.metrics.table_entries[table as usize].set(entries as i64);
        }
    }
}
