//! How `top` looks: two lines about the daemon, a table or one container, and a line of keys.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::SortKey;
use super::model::{App, Detail, Page};
use crate::capabilities::CapsInfo;
use crate::cli::containers::{cell, fit, short, width};
use crate::control::{TopInfo, TopListing};

const HELP: &str = "\
 up, down, page up, page down, home, end   choose a container
 enter or right   what it tried, by call and outcome; its rules and capabilities
 esc or left      back to all containers
 a attempts   s attempts a second   r refused   l lost   f alerts (rules firing)   n name
 q or ctrl-c      end

 ATTEMPTS are events that the rules judged, whatever became of them. REFUSED is what
 seccomp, a capability check, an LSM or the device controller refused. LOST records
 found no room in the ring: nobody judged them. RING says how full that is now.

 any key leaves this page";

const KEYS: &str = " enter: open  a s r l f n: sort  ?: help  q: end";
const DETAIL_KEYS: &str = " esc: back  up, down: scroll  ?: help  q: end";

/// Columns of numbers: title, width, key by which they are sorted.
const NUMBERS: [(&str, usize, SortKey); 5] = [
    ("ATTEMPTS", 9, SortKey::Attempts),
    ("/S", 7, SortKey::Rate),
    ("REFUSED", 8, SortKey::Refused),
    ("LOST", 7, SortKey::Lost),
    ("ALERTS", 7, SortKey::Alerts),
];
/// Of an id.
const ID: usize = 12;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let keys = u16::from(app.keys);
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(keys)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(header(app, usize::from(top.width))), top);
    match app.page.clone() {
        Page::List => table(frame, app, middle),
        Page::Detail(detail) => self::detail(frame, app, &detail, middle),
    }
    if app.keys {
        let keys = if app.page == Page::List { KEYS } else { DETAIL_KEYS };
        frame.render_widget(Paragraph::new(keys).style(Style::new().reversed()), bottom);
    }
    if app.help {
        let [area] = Layout::vertical([Constraint::Max(15)]).areas(middle);
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" ringfence top ")), area);
    }
}

fn header(app: &App, columns: usize) -> Text<'static> {
    let listing = app.listing();
    let state = match listing.state.as_str() {
        "ready" => Style::new().fg(Color::Green),
        "degraded" | "starting" => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::Red).bold(),
    };
    let up = listing.up_ms / 1000;
    let containers = listing.containers.iter().filter(|info| info.phase.is_some()).count() as u64;
    let mut first = vec![
        Span::raw("ringfence "),
        Span::styled(cell(&listing.state), state),
        Span::raw(format!(
            ", up {}:{:02}:{:02}, {} containers, ring {}",
            up / 3600,
            up / 60 % 60,
            up % 60,
            containers + listing.omitted,
            ring(listing)
        )),
    ];
    if listing.omitted > 0 {
        first.push(Span::raw(format!(" ({} not shown)", listing.omitted)));
    }
    let second = match &app.error {
        Some(error) => Line::styled(fit(error, columns), Style::new().fg(Color::Red).bold()),
        None => {
            let lost = if listing.lost > 0 { Style::new().fg(Color::Red) } else { Style::new() };
            Line::from(vec![
                Span::raw(format!("records: {} seen, {} delivered, ", listing.seen, listing.delivered)),
                Span::styled(format!("{} lost", listing.lost), lost),
            ])
        }
    };
    Text::from(vec![Line::from(first), second])
}

/// How full the ring is.
fn ring(listing: &TopListing) -> String {
    const BAR: u64 = 10;
    let size = listing.ring_bytes;
    let unit = if size >= 1 << 20 { format!("{} MiB", size >> 20) } else { format!("{} KiB", size >> 10) };
    match listing.ring_used_bytes {
        Some(used) if size > 0 => {
            let percent = (used.min(size) * 100).div_ceil(size);
            let full = (percent * BAR).div_ceil(100) as usize;
            format!("[{}{}] {percent}% of {unit}", "#".repeat(full), ".".repeat(BAR as usize - full))
        }
        _ => unit,
    }
}

fn table(frame: &mut Frame<'_>, app: &mut App, area: Rect) {
    let columns = usize::from(area.width);
    app.page_rows = usize::from(area.height).saturating_sub(1);
    let chosen = app.chosen();
    // The chosen one is always to be seen.
    app.first = app.first.min(chosen).max((chosen + 1).saturating_sub(app.page_rows.max(1)));
    let fixed = ID + NUMBERS.iter().map(|(_, width, _)| width + 1).sum::<usize>();
    // What is left goes to the name and the rule.
    let rest = columns.saturating_sub(fixed + 2);
    let (name, rule) = (rest.div_ceil(2), rest / 2);
    let mut lines = vec![title(app.sort, name, rule)];
    for (number, info) in app.listing().containers.iter().enumerate().skip(app.first).take(app.page_rows) {
        let mut style = Style::new();
        if app.keys && number == chosen {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let lost = if info.lost > 0 { style.fg(Color::Red) } else { style };
        let refused = if info.refused > 0 { style.fg(Color::Yellow) } else { style };
        let alerts = if info.alerts > 0 { style.bold() } else { style };
        let rate = app.rate(&info.id).map_or("-".to_owned(), rate);
        let numbers = [
            (count(info.attempts), style),
            (rate, style),
            (count(info.refused), refused),
            (count(info.lost), lost),
            (count(info.alerts), alerts),
        ];
        let mut line = vec![Span::styled(left(&short(&info.id), ID), style), Span::styled(" ", style)];
        line.push(Span::styled(left(info.name.as_deref().unwrap_or("-"), name), style));
        for ((text, style), (_, width, _)) in numbers.into_iter().zip(NUMBERS) {
            line.push(Span::styled(format!(" {text:>width$}"), style));
        }
        line.push(Span::styled(" ", style));
        line.push(Span::styled(left(&rules(info), rule), style));
        lines.push(Line::from(line));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn title(sort: SortKey, name: usize, rule: usize) -> Line<'static> {
    let bold = Style::new().bold();
    let style = |key| if key == sort { bold.underlined() } else { bold };
    let mut title = vec![Span::styled(left("CONTAINER", ID), bold), Span::raw(" ")];
    title.push(Span::styled(left("NAME", name), style(SortKey::Name)));
    for (text, width, key) in NUMBERS {
        title.push(Span::styled(format!(" {text:>width$}"), style(key)));
    }
    title.push(Span::styled(format!(" {}", left("RULE (MOST)", rule)), bold));
    Line::from(title)
}

/// The rule that fired most, and how many others did.
fn rules(info: &TopInfo) -> String {
    match (&info.top_rule, info.rules_firing) {
        (Some(rule), 2..) => format!("{rule} +{}", info.rules_firing - 1),
        (Some(rule), _) => rule.clone(),
        (None, _) => "-".to_owned(),
    }
}

/// A text in so many columns, no more and no less; nothing in it drives the terminal.
fn left(text: &str, columns: usize) -> String {
    let text = fit(&cell(text), columns);
    let pad = columns.saturating_sub(width(&text));
    text + &" ".repeat(pad)
}

/// A number in at most seven columns.
fn count(number: u64) -> String {
    match number {
        0..=999_999 => number.to_string(),
        1_000_000..=999_999_999 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{:.1}G", number as f64 / 1e9),
    }
}

fn rate(rate: f64) -> String {
    if rate == 0.0 || rate >= 10.0 { count(rate.round() as u64) } else { format!("{rate:.1}") }
}

fn detail(frame: &mut Frame<'_>, app: &mut App, detail: &Detail, area: Rect) {
    let columns = usize::from(area.width);
    let lines = detail_lines(detail, columns);
    let rows = usize::from(area.height);
    app.page_rows = rows;
    let most = u16::try_from(lines.len().saturating_sub(rows)).unwrap_or(u16::MAX);
    if let Page::Detail(shown) = &mut app.page {
        shown.scrolled = shown.scrolled.min(most);
    }
    frame.render_widget(Paragraph::new(lines).scroll((detail.scrolled.min(most), 0)), area);
}

fn detail_lines(detail: &Detail, columns: usize) -> Vec<Line<'static>> {
    let bold = Style::new().bold();
    let mut lines = Vec::new();
    let gone = if detail.gone { "gone, as last seen: " } else { "" };
    let plain = |text: String| Line::raw(fit(&text, columns));
    lines.push(Line::styled(fit(&format!("{gone}{}", cell(&detail.id)), columns), bold));
    let Some(info) = &detail.info else {
        lines.push(Line::raw("nothing is known of it yet"));
        return lines;
    };
    let named =
        [("name", &info.name), ("image", &info.image), ("pod", &info.pod), ("runtime", &info.runtime)];
    let named: Vec<String> =
        named.iter().filter_map(|(key, value)| Some(format!("{key} {}", cell(value.as_deref()?)))).collect();
    if !named.is_empty() {
        lines.push(plain(named.join(", ")));
    }
    let phase =
        info.phase.map_or(String::new(), |phase| format!("{}, {} processes, ", phase.name(), info.processes));
    lines.push(plain(format!(
        "{phase}{} attempts, {} refused, {} failed, {} lost, {} alerts",
        info.attempts, info.refused, info.failed, info.lost, info.alerts
    )));
    lines.push(Line::raw(""));
    lines.push(Line::styled(format!("{:18} {:25} {:>12}", "CALL", "OUTCOME", "COUNT"), bold));
    for call in &info.calls {
        let style =
            if call.outcome.starts_with("refused") { Style::new().fg(Color::Yellow) } else { Style::new() };
        let text = format!("{} {} {:>12}", left(&call.call, 18), left(&call.outcome, 25), call.count);
        lines.push(Line::styled(fit(&text, columns), style));
    }
    if info.calls.is_empty() {
        lines.push(Line::raw("none"));
    }
    lines.push(Line::raw(""));
    lines.push(Line::styled(format!("{:44} {:>12}", "RULE", "ALERTS"), bold));
    let mut rules: Vec<_> = info.rules.iter().collect();
    rules.sort_by_key(|(rule, count)| (std::cmp::Reverse(**count), (*rule).clone()));
    lines.extend(rules.iter().map(|(rule, count)| plain(format!("{} {count:>12}", left(rule, 44)))));
    if rules.is_empty() {
        lines.push(Line::raw("none fired"));
    }
    if let Some(caps) = &detail.caps {
        lines.push(Line::raw(""));
        lines.push(Line::styled(
            format!("{:26} {:8} {:>10} {:>10}", "CAPABILITY", "GRANTED", "USED", "REFUSED"),
            bold,
        ));
        lines.extend(capabilities(caps).into_iter().map(plain));
    }
    lines
}

fn capabilities(caps: &CapsInfo) -> Vec<String> {
    let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let row = |cap: &crate::capabilities::CapInfo| {
        let granted = match cap.granted.as_deref() {
            Some("permitted") => "yes",
            Some("bounding") => "bounding",
            Some(_) => "no",
            None => "?",
        };
        format!(
            "{} {granted:8} {:>10} {:>10}",
            left(&cap.capability, 26),
            count(caps.used(cap).map(|used| used.count)),
            count(cap.refused.as_ref().map(|refused| refused.count))
        )
    };
    let rows: Vec<String> = caps.capabilities.iter().map(row).collect();
    if rows.is_empty() { vec!["none was granted, and none was asked for".to_owned()] } else { rows }
}

/// What was drawn, as lines without styles.
pub(super) fn lines(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width).max(1)) {
        let mut line = String::new();
        let mut skip = 0;
        for cell in row {
            // Behind a wide character stands a cell that is none.
            if skip > 0 {
                skip -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            skip = width(cell.symbol()).saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
