//! The keys `group_by` and `group_seconds` of a rule.

use super::threshold::read_fields;
use super::{How, ItemReader};
use crate::rules::grouping::check_group_seconds;
use crate::rules::threshold::NamedField;

/// What a rule says of grouping; what is `None` is left to the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupKeys {
    pub(crate) by: Option<Vec<NamedField>>,
    pub(crate) seconds: Option<u32>,
}

impl ItemReader<'_> {
    /// Reads the keys. What is wrong has been reported.
    pub(super) fn grouping(&mut self) -> GroupKeys {
        let by = self.take("group_by").map(|node| read_fields(self, "group_by", &node));
        GroupKeys { by, seconds: self.group_seconds() }
    }

    /// Reads those that are replaced.
    pub(super) fn new_grouping(&mut self, how: impl Fn(&str) -> Option<How>) -> GroupKeys {
        let mut keys = GroupKeys::default();
        if how("group_by").is_some() {
            keys.by = self.take("group_by").map(|node| read_fields(self, "group_by", &node));
        }
        if how("group_seconds").is_some() {
            keys.seconds = self.group_seconds();
        }
        keys
    }

    fn group_seconds(&mut self) -> Option<u32> {
        let node = self.take("group_seconds")?;
        let text = node.text().unwrap_or_default();
        let read = match text.parse::<u64>() {
            Ok(seconds) => check_group_seconds(seconds),
            Err(_) => Err(format!("`{text}` is not a whole number of seconds")),
        };
        read.map_err(|message| self.wrong(&node, message)).ok()
    }
}
