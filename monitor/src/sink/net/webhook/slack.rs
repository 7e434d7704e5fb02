//! A message for Slack: attachments, which Mattermost and Rocket.Chat read as well.

use serde_json::{Value, json};

use super::super::alert::Alert;
use crate::rules::Priority;

/// Characters of a text, and of a field's value, that are sent at most.
const MOST: (usize, usize) = (3000, 500);

pub(super) fn message(alert: &Alert<'_>, priority: Priority) -> Value {
    let seconds = super::super::alert::unix_nanos(&alert.time).unwrap_or_default() / 1_000_000_000;
    let mut fields = vec![field("Priority", priority.as_str()), field("Host", &alert.hostname)];
    for (title, names) in [
        ("Container", &["k8s.container.name", "container.name", "container.id"][..]),
        ("Image", &["container.image"]),
        ("Pod", &["k8s.pod.name"]),
        ("Namespace", &["k8s.ns.name"]),
        ("Process", &["proc.exepath", "proc.name"]),
        ("Verdict", &["evt.verdict"]),
        ("Alerts alike", &["group.count"]),
        ("First", &["group.first"]),
        ("Last", &["group.last"]),
    ] {
        if let Some(value) = names.iter().find_map(|name| alert.text(name)) {
            fields.push(field(title, &value));
        }
    }
    let output = escaped(&alert.output, MOST.0);
    json!({
        "text": format!("{}: {}", priority.as_str(), escaped(&alert.rule, MOST.1)),
        "attachments": [{
            "color": colour(priority),
            "fallback": &output,
            "text": &output,
            "fields": fields,
            "footer": "Ringfence",
            "ts": seconds,
        }],
    })
}

fn field(title: &str, value: &str) -> Value {
    json!({"title": title, "value": escaped(value, MOST.1), "short": value.chars().count() <= 40})
}

const fn colour(priority: Priority) -> &'static str {
    match priority {
        Priority::Emergency | Priority::Alert | Priority::Critical => "#a30200",
        Priority::Error => "#d4351c",
        Priority::Warning => "#f2c744",
        Priority::Notice => "#439fe0",
        Priority::Informational | Priority::Debug => "#9b9b9b",
    }
}

/// Slack takes `<!channel>` and `<http://…|text>` for orders, and whoever is watched chooses names.
pub(super) fn escaped(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        if at == most {
            out.push('…');
            break;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_its_count() {
        let line = crate::sink::net::testing::summary();
        let message = message(&Alert::read(line.as_bytes()).unwrap(), Priority::Error);
        let fields = message["attachments"][0]["fields"].as_array().unwrap();
        for (title, value) in [
            ("Alerts alike", "12"),
            ("First", "2026-11-23T19:45:46.123456789Z"),
            ("Last", "2026-11-23T19:46:40.000000000Z"),
        ] {
            assert!(fields.contains(&json!({"title": title, "value": value, "short": true})), "{fields:?}");
        }
    }
}
