//! Other shapes of an alert, for programs that do not read Ringfence's own.
//!
//! They are made from the canonical JSON line, in the thread of the output that wants them: nothing is paid on the path of
//! an event. Where a shape has no place for what we know, it is left out or put where the shape lets others add; nothing is
//! made up.

mod ecs;
mod falco;
mod ocsf;
mod read;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

/// How an alert looks as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// As `docs/alert.schema.json` says.
    #[default]
    Ringfence,
    /// As Falco's, and so Falcosidekick's.
    Falco,
    /// As the Elastic Common Schema says, for Elasticsearch and what reads its documents.
    Ecs,
    /// As the Open Cybersecurity Schema Framework says: a Detection Finding.
    Ocsf,
}

impl Shape {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Shape::Ringfence => "ringfence",
            Shape::Falco => "falco",
            Shape::Ecs => "ecs",
            Shape::Ocsf => "ocsf",
        }
    }
}

/// Makes lines of another shape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shaper {
    shape: Shape,
}

impl Shaper {
    /// For this shape.
    pub fn new(shape: Shape) -> Self {
        Shaper { shape }
    }

    /// Whether lines become other lines at all.
    pub fn changes(self) -> bool {
        self.shape != Shape::Ringfence
    }

    /// Appends the canonical line in the shape; without a line feed, as it came.
    pub fn push(self, line: &[u8], out: &mut Vec<u8>) {
        let made = match self.shape {
            Shape::Ringfence => None,
            shape => serde_json::from_slice(line).ok().map(|alert| make(shape, alert)),
        };
        match made {
            // Writing to a Vec cannot fail, and a Value has text keys only.
            Some(made) => drop(serde_json::to_writer(&mut *out, &made)),
            // What is not ours is passed on as it is.
            None => out.extend_from_slice(line),
        }
    }

    /// The same for whole lines with their line feeds.
    pub fn push_lines(self, lines: &[u8], out: &mut Vec<u8>) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.push(line.strip_suffix(b"\n").unwrap_or(line), out);
            out.push(b'\n');
        }
    }
}

fn make(shape: Shape, alert: Map<String, Json>) -> Json {
    match shape {
        Shape::Ringfence => Json::Object(alert),
        Shape::Falco => falco::make(alert),
        Shape::Ecs => ecs::make(&read::Alert::new(alert)),
        Shape::Ocsf => ocsf::make(&read::Alert::new(alert)),
    }
}

#[cfg(test)]
mod tests;
