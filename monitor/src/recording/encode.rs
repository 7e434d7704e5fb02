//! Events into a block: each text once, each field by its name.

use std::collections::HashMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::format::*;
use crate::event_type::EventType;
use crate::fields::{Enumerate, Field, FieldKey, Value, closed_keys};

/// Measured: higher levels take two to four times as long for a tenth less.
const LEVEL: u32 = 3;

/// An event has more than a block may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event's values have more than {MAX_EVENT_TEXT} bytes")]
pub struct TooLarge;

/// Texts, each with a number in the order of its first use.
#[derive(Debug, Default)]
struct Table {
    bytes: Vec<u8>,
    numbers: HashMap<Box<str>, u32>,
    count: u32,
}

impl Table {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.add(|bytes| push_text(text, bytes));
        self.numbers.insert(text.into(), number);
        number
    }

    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> u32 {
        write(&mut self.bytes);
        self.count += 1;
        self.count - 1
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.numbers.clear();
        self.count = 0;
    }
}

/// A block that is being filled. It is used again and again, so that steady work allocates little.
#[derive(Debug)]
pub struct BlockEncoder {
    preface: Vec<u8>,
    names: Table,
    /// The name's number of each of [`closed_keys`], once it is in the block.
    closed: Vec<Option<u32>>,
    texts: Table,
    events: Vec<u8>,
    /// The event at hand.
    body: Vec<u8>,
    unfolded: usize,
    head: Head,
    last_unix: i64,
    last_boot: i64,
}

impl BlockEncoder {
    /// An empty block of events of the host of that name.
    pub fn new(hostname: &str) -> Self {
        let mut preface = Vec::new();
        push_text(hostname, &mut preface);
        push_text(env!("CARGO_PKG_VERSION"), &mut preface);
        BlockEncoder {
            preface,
            names: Table::default(),
            closed: vec![None; closed_keys().len()],
            texts: Table::default(),
            events: Vec::new(),
            body: Vec::new(),
            unfolded: 0,
            head: Head::default(),
            last_unix: 0,
            last_boot: 0,
        }
    }

    /// Events in the block.
    pub fn len(&self) -> u32 {
        self.head.events
    }

    /// Whether it has no event.
    pub fn is_empty(&self) -> bool {
        self.head.events == 0
    }

    /// Whether it has to be ended before another event.
    pub fn is_full(&self) -> bool {
        self.bytes() >= FULL_RAW || self.unfolded >= FULL_UNFOLDED || self.names.count as usize >= FULL_NAMES
    }

    fn bytes(&self) -> usize {
        self.preface.len() + self.names.bytes.len() + self.texts.bytes.len() + self.events.len()
    }

    /// Adds an event that happened at `unix_ns` since 1970, `boot_ns` since boot. Its `evt.type` and `evt.boot_ns` are
    /// not asked for.
    ///
    /// # Errors
    /// It is too large; the block is as before.
    pub fn push(
        &mut self,
        unix_ns: i64,
        boot_ns: u64,
        ty: EventType,
        event: &impl Enumerate,
    ) -> Result<(), TooLarge> {
        let marks = [&self.names, &self.texts].map(|table| (table.count, table.bytes.len()));
        self.body.clear();
        let ty = self.texts.number(ty.name());
        push_signed(unix_ns.wrapping_sub(self.last_unix), &mut self.body);
        push_signed(boot_ns.cast_signed().wrapping_sub(self.last_boot), &mut self.body);
        push_number(ty.into(), &mut self.body);
        let mut size = 0;
        event.each(&mut |key, value| {
            if matches!(key.field, Field::EvtType | Field::EvtBootNs) || size > MAX_EVENT_TEXT {
                return;
            }
            size += size_of_value(&key, &value);
            if size <= MAX_EVENT_TEXT {
                self.value(key, &value);
            }
        });
        if size > MAX_EVENT_TEXT {
            self.forget(marks);
            return Err(TooLarge);
        }
        push_number(self.body.len() as u64, &mut self.events);
        self.events.extend_from_slice(&self.body);
        self.unfolded += size;
        (self.last_unix, self.last_boot) = (unix_ns, boot_ns.cast_signed());
        let head = &mut self.head;
        (head.first_ns, head.last_ns) = match head.events {
            0 => (unix_ns, unix_ns),
            _ => (head.first_ns.min(unix_ns), head.last_ns.max(unix_ns)),
        };
        head.events += 1;
        Ok(())
    }

    fn value(&mut self, key: FieldKey<'_>, value: &Value<'_>) {
        let name = u64::from(self.name(key)) << tag::BITS;
        let body = &mut self.body;
        match value {
            Value::Absent => {}
            Value::Text(text) => {
                push_number(name | tag::TEXT, body);
                push_number(self.texts.number(text).into(), body);
            }
            Value::Number(number) => {
                push_number(name | tag::NUMBER, body);
                push_signed(*number, body);
            }
            Value::Bool(flag) => push_number(name | if *flag { tag::TRUE } else { tag::FALSE }, body),
            Value::List(members) => {
                push_number(name | tag::LIST, body);
                push_number(members.len() as u64, body);
                for member in members.iter() {
                    push_number(self.texts.number(member).into(), body);
                }
            }
        }
    }

    fn name(&mut self, key: FieldKey<'_>) -> u32 {
        let written = |bytes: &mut Vec<u8>| {
            push_text(key.field.spec().name, bytes);
            let arg = key.arg_text();
            // 0 is no argument, so that an empty one is another thing.
            push_number(arg.as_ref().map_or(0, |arg| arg.len() as u64 + 1), bytes);
            bytes.extend_from_slice(arg.as_deref().unwrap_or_default().as_bytes());
        };
        if let Some(number) = key.position().and_then(|position| self.closed.get_mut(position)) {
            return *number.get_or_insert_with(|| self.names.add(written));
        }
        // No field's name has a bracket in it.
        let whole = format!("{}[{}", key.field.spec().name, key.arg_text().unwrap_or_default());
        if let Some(number) = self.names.numbers.get(&*whole) {
            return *number;
        }
        let number = self.names.add(written);
        self.names.numbers.insert(whole.into(), number);
        number
    }

    /// Takes away what an event brought that has no place.
    fn forget(&mut self, [names, texts]: [(u32, usize); 2]) {
        for (table, (count, len)) in [(&mut self.names, names), (&mut self.texts, texts)] {
            table.bytes.truncate(len);
            table.count = count;
            table.numbers.retain(|_, number| *number < count);
        }
        for number in &mut self.closed {
            *number = number.filter(|number| *number < names.0);
        }
    }

    /// Ends the block: its payload goes to `raw`, which is cleared before, and a new one begins.
    pub fn finish(&mut self, raw: &mut Vec<u8>) -> RawBlock {
        raw.clear();
        raw.extend_from_slice(&self.preface);
        for table in [&mut self.names, &mut self.texts] {
            push_number(table.count.into(), raw);
            raw.extend_from_slice(&table.bytes);
            table.clear();
        }
        raw.extend_from_slice(&self.events);
        self.events.clear();
        self.closed.fill(None);
        (self.unfolded, self.last_unix, self.last_boot) = (0, 0, 0);
        RawBlock(std::mem::take(&mut self.head))
    }
}

fn size_of_value(key: &FieldKey<'_>, value: &Value<'_>) -> usize {
    // So much at least for a value that is no text.
    const PLAIN: usize = 8;
    let arg = if key.position().is_none() { key.arg_text().map_or(0, |arg| arg.len()) } else { 0 };
    PLAIN
        + arg
        + match value {
            Value::Text(text) => text.len(),
            Value::List(members) => members.iter().map(|member| PLAIN + member.len()).sum(),
            Value::Absent | Value::Number(_) | Value::Bool(_) => 0,
        }
}

/// What the head of an ended block will say.
#[derive(Clone, Copy, Debug)]
pub struct RawBlock(Head);

impl RawBlock {
    /// Events in the block.
    pub fn events(&self) -> u32 {
        self.0.events
    }

    /// Appends the block as it is stored. `dropped` events could not be written since the block before.
    pub fn write(&self, raw: &[u8], dropped: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + HEAD, 0);
        // Neither fails: a vector takes all.
        let mut deflate = DeflateEncoder::new(std::mem::take(out), Compression::new(LEVEL));
        let written = deflate.write_all(raw);
        let packed = deflate.finish();
        let mut codec = DEFLATE;
        match (written, packed) {
            (Ok(()), Ok(packed)) if packed.len() - start - HEAD < raw.len() => *out = packed,
            (_, packed) => {
                *out = packed.unwrap_or_default();
                out.resize(start + HEAD, 0);
                out.extend_from_slice(raw);
                codec = STORED;
            }
        }
        let Some(payload) = out.get(start + HEAD..) else { return };
        let head = Head {
            version: FORMAT_VERSION,
            kind: KIND_EVENTS,
            codec,
            stored: payload.len() as u32,
            raw: raw.len() as u32,
            dropped,
            sum: crc32fast::hash(payload),
            ..self.0
        };
        if let Some(place) = out.get_mut(start..start + HEAD) {
            place.copy_from_slice(&head.to_bytes());
        }
    }
}
