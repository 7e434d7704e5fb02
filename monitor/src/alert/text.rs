//! An alert as one line for people.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

use crate::alert::why::push_text_why;
use crate::alert::{Alert, WallClock, push_visible};
use crate::fields::{FieldArg, FieldRef, FieldSource, Value};

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Palette {
    /// No escape sequences at all.
    #[default]
    Plain,
    /// ANSI colours by priority.
    Coloured,
}

impl Palette {
    /// Coloured if standard output is a terminal that can do it and neither `no_color` nor the environment
    /// (`NO_COLOR`, `TERM=dumb`) forbids it.
    pub fn for_stdout(no_color: bool) -> Self {
        let choice = anstream::AutoStream::choice(&std::io::stdout());
        if no_color || choice == anstream::ColorChoice::Never { Palette::Plain } else { Palette::Coloured }
    }

    /// The style of one of Falco's priority words.
    pub(crate) fn style(self, priority: &str) -> Style {
        if self == Palette::Plain {
            return Style::new();
        }
        match priority {
            "Emergency" | "Alert" | "Critical" => AnsiColor::Red.on_default().bold(),
            "Error" => AnsiColor::Red.on_default(),
            "Warning" => AnsiColor::Yellow.on_default(),
            "Notice" => AnsiColor::Cyan.on_default(),
            "Informational" => AnsiColor::Green.on_default(),
            _ => Style::new().dimmed(),
        }
    }
}

/// Width of the longest priority word.
const PRIORITY_WIDTH: usize = "Informational".len();

/// Writes alerts as text lines: `HH:MM:SS.mmm PRIORITY  rule-id  output`, times in UTC. Behind the output stands who
/// the container is, as `container.name=web`, unless the output names it itself, and what a threshold counted; then, if
/// asked for, why the rule matched.
#[derive(Clone, Debug, Default)]
pub struct TextLines {
    clock: WallClock,
    palette: Palette,
}

impl TextLines {
    /// A writer with or without colours.
    pub fn new(palette: Palette) -> Self {
        Self { clock: WallClock::default(), palette }
    }

    /// Appends the alert and a line feed.
    pub fn write<E: FieldSource + ?Sized>(&mut self, alert: &Alert<'_, E>, out: &mut Vec<u8>) {
        let form = alert.form;
        let style = self.palette.style(&form.priority);
        self.clock.push_time_of_day(alert.unix_ns, out);
        // Writing to a Vec cannot fail. Padding stands outside the style, so that nothing trails.
        let pad = PRIORITY_WIDTH.saturating_sub(form.priority.len()) + 2;
        let _ = write!(out, " {style}{}{style:#}{:pad$}{}  ", form.priority, "", form.id);
        push_visible(alert.output, out);
        for field in &form.unnamed {
            if let Value::Text(name) = alert.event.value(FieldRef { field: *field, arg: FieldArg::None }) {
                let _ = write!(out, " {}=", field.spec().name);
                push_visible(&name, out);
            }
        }
        if let Some(crossed) = alert.crossed {
            crossed.push_text(&mut self.clock, out);
        }
        if let Some(grouped) = alert.grouped {
            grouped.push_text(&mut self.clock, out);
        }
        if let Some(reasons) = alert.why {
            push_text_why(reasons, out);
        }
        out.push(b'\n');
    }
}
